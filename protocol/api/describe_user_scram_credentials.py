"""DescribeUserScramCredentials: which mechanisms users have, never the secrets (KIP-554)."""

from protocol.grammar import ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

UserName = struct(
    "UserName",
    "name" / String,  # of the user
)

DescribeUserScramCredentialsRequest = request(
    50,
    versions("0", flexible="0+"),
    "users" / nullable(array(UserName)),  # null for all
)

CredentialInfo = struct(
    "CredentialInfo",
    "mechanism" / Int8,  # 1 SCRAM-SHA-256, 2 SCRAM-SHA-512
    "iterations" / Int32,
)

DescribeUserScramCredentialsResult = struct(
    "DescribeUserScramCredentialsResult",
    "user" / String,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "credential_infos" / array(CredentialInfo),
)

DescribeUserScramCredentialsResponse = response(
    50,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "results" / array(DescribeUserScramCredentialsResult),
)
