"""RemoveRaftVoter."""

from protocol.grammar import ErrorCode, Int32, String, Uuid, nullable, request, response, versions

RemoveRaftVoterRequest = request(
    81,
    versions("0", flexible="0+"),
    "cluster_id" / nullable(String),
    "voter_id" / Int32,
    "voter_directory_id" / Uuid,
)

RemoveRaftVoterResponse = response(
    81,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)
