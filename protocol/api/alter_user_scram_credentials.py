"""AlterUserScramCredentials: sets and deletes SCRAM credentials (KIP-554)."""

from protocol.grammar import Bytes, ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

ScramCredentialDeletion = struct(
    "ScramCredentialDeletion",
    "name" / String,  # of the user
    "mechanism" / Int8,  # 1 SCRAM-SHA-256, 2 SCRAM-SHA-512
)

ScramCredentialUpsertion = struct(
    "ScramCredentialUpsertion",
    "name" / String,  # of the user
    "mechanism" / Int8,  # 1 SCRAM-SHA-256, 2 SCRAM-SHA-512
    "iterations" / Int32,
    "salt" / Bytes,
    "salted_password" / Bytes,  # the PBKDF2 result; the password itself never travels
)

AlterUserScramCredentialsRequest = request(
    51,
    versions("0", flexible="0+"),
    "deletions" / array(ScramCredentialDeletion),
    "upsertions" / array(ScramCredentialUpsertion),
)

AlterUserScramCredentialsResult = struct(
    "AlterUserScramCredentialsResult",
    "user" / String,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

AlterUserScramCredentialsResponse = response(
    51,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "results" / array(AlterUserScramCredentialsResult),
)
