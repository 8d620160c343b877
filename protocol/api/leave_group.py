"""LeaveGroup: members leave a classic group; since v3 many at once, for tools (KIP-345)."""

from protocol.grammar import (
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
    until,
    versions,
)

MemberIdentity = struct(
    "MemberIdentity",
    "member_id" / String,
    default(None, "group_instance_id" / nullable(String)),  # set for static members (KIP-345)
    since(5, default(None, "reason" / nullable(String))),  # why it leaves, for the broker's log (KIP-800)
)

LeaveGroupRequest = request(
    13,
    versions("0-5", flexible="4+"),
    "group_id" / GroupId,
    until(2, "member_id" / String),  # before v3 members left one by one
    since(3, "members" / array(MemberIdentity)),
)

MemberResponse = struct(
    "MemberResponse",
    "member_id" / String,
    "group_instance_id" / nullable(String),  # set for static members (KIP-345)
    "error_code" / ErrorCode,
)

LeaveGroupResponse = response(
    13,
    versions("0-5", flexible="4+"),
    since(1, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
    since(3, "members" / array(MemberResponse)),
)
