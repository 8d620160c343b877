"""RemoveRaftVoter: a controller leaves the KRaft quorum (KIP-853). kpy has no quorum; tools send it."""

from protocol.grammar import ErrorCode, Int32, String, Uuid, nullable, request, response, versions

RemoveRaftVoterRequest = request(
    81,
    versions("0", flexible="0+"),
    "cluster_id" / nullable(String),  # refused if it is not this cluster's
    "voter_id" / Int32,
    "voter_directory_id" / Uuid,  # of the metadata log's directory; tells a wiped disk from the old one
)

RemoveRaftVoterResponse = response(
    81,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)
