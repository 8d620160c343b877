"""SyncGroup: the leader of a classic group hands in the assignment, every member gets its part."""

from protocol.grammar import (
    Bytes,
    ErrorCode,
    GroupId,
    Int32,
    String,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

SyncGroupRequestAssignment = struct(
    "SyncGroupRequestAssignment",
    "member_id" / String,
    "assignment" / Bytes,
)

SyncGroupRequest = request(
    14,
    versions("0-5", flexible="4+"),
    "group_id" / GroupId,
    "generation_id" / Int32,
    "member_id" / String,
    since(3, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    since(5, default(None, "protocol_type" / nullable(String))),  # "consumer" for consumers
    since(5, default(None, "protocol_name" / nullable(String))),  # the chosen assignor
    "assignments" / array(SyncGroupRequestAssignment),  # from the leader only
)

SyncGroupResponse = response(
    14,
    versions("0-5", flexible="4+"),
    since(1, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
    since(5, default(None, "protocol_type" / nullable(String))),  # "consumer" for consumers
    since(5, default(None, "protocol_name" / nullable(String))),  # the chosen assignor
    "assignment" / Bytes,  # of this member
)
