"""Heartbeat: a member of a classic group says that it lives, and learns whether the group is rebalancing."""

from protocol.grammar import ErrorCode, GroupId, Int32, String, default, nullable, request, response, since, versions

HeartbeatRequest = request(
    12,
    versions("0-4", flexible="4+"),
    "group_id" / GroupId,
    "generation_id" / Int32,  # the member last joined
    "member_id" / String,
    since(3, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
)

HeartbeatResponse = response(
    12,
    versions("0-4", flexible="4+"),
    since(1, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
)
