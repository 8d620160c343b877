"""AddRaftVoter: a controller joins the KRaft quorum (KIP-853). kpy has no quorum; tools send it."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int32,
    String,
    UInt16,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

Listener = struct(
    "Listener",
    "name" / String,  # of the listener
    "host" / String,
    "port" / UInt16,
)

AddRaftVoterRequest = request(
    80,
    versions("0-1", flexible="0+"),
    "cluster_id" / nullable(String),  # refused if it is not this cluster's
    "timeout_ms" / Int32,
    "voter_id" / Int32,
    "voter_directory_id" / Uuid,  # of the metadata log's directory; tells a wiped disk from the old one
    "listeners" / array(Listener),
    # answer once the new voter set is committed, not when it is appended
    since(1, default(True, "ack_when_committed" / Bool)),
)

AddRaftVoterResponse = response(
    80,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)
