"""JoinGroup."""

from protocol.grammar import (
    Bool,
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

JoinGroupRequestProtocol = struct(
    "JoinGroupRequestProtocol",
    "name" / String,
    "metadata" / Bytes,
)

JoinGroupRequest = request(
    11,
    versions("0-9", flexible="6+"),
    "group_id" / GroupId,
    "session_timeout_ms" / Int32,
    since(1, default(-1, "rebalance_timeout_ms" / Int32)),
    "member_id" / String,
    since(5, default(None, "group_instance_id" / nullable(String))),
    "protocol_type" / String,
    "protocols" / array(JoinGroupRequestProtocol),
    since(8, default(None, "reason" / nullable(String))),
)

JoinGroupResponseMember = struct(
    "JoinGroupResponseMember",
    "member_id" / String,
    since(5, default(None, "group_instance_id" / nullable(String))),
    "metadata" / Bytes,
)

JoinGroupResponse = response(
    11,
    versions("0-9", flexible="6+"),
    since(2, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
    default(-1, "generation_id" / Int32),
    since(7, default(None, "protocol_type" / nullable(String))),
    "protocol_name" / nullable(String, since=7),
    "leader" / String,
    since(9, "skip_assignment" / Bool),
    "member_id" / String,
    "members" / array(JoinGroupResponseMember),
)
