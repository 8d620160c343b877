"""JoinGroup: a member joins a classic group, and waits for the others.

v4 makes new members ask twice, with the id the broker gave them (KIP-394). v5 brought static members (KIP-345).
"""

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
    "name" / String,  # of the assignment strategy, such as range
    "metadata" / Bytes,  # the member's subscription, in the format of the protocol type
)

JoinGroupRequest = request(
    11,
    versions("0-9", flexible="6+"),
    "group_id" / GroupId,
    "session_timeout_ms" / Int32,  # how long a member may be silent
    # how long a rebalance waits for the member; before v1 the session timeout
    since(1, default(-1, "rebalance_timeout_ms" / Int32)),
    "member_id" / String,  # empty for a first join
    since(5, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    "protocol_type" / String,  # "consumer" for consumers
    "protocols" / array(JoinGroupRequestProtocol),  # the assignors the member can use, best first
    since(8, default(None, "reason" / nullable(String))),  # why it joins again, for the broker's log (KIP-800)
)

JoinGroupResponseMember = struct(
    "JoinGroupResponseMember",
    "member_id" / String,
    since(5, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    "metadata" / Bytes,  # its subscription for the chosen protocol
)

JoinGroupResponse = response(
    11,
    versions("0-9", flexible="6+"),
    since(2, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
    default(-1, "generation_id" / Int32),  # -1 with an error
    since(7, default(None, "protocol_type" / nullable(String))),  # "consumer" for consumers
    "protocol_name" / nullable(String, since=7),  # the chosen assignor
    "leader" / String,  # member id
    since(9, "skip_assignment" / Bool),  # the leader is not to assign anew (KIP-814)
    "member_id" / String,
    "members" / array(JoinGroupResponseMember),  # for the leader only
)
