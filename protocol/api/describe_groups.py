"""DescribeGroups: shows classic groups."""

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

DescribeGroupsRequest = request(
    15,
    versions("0-6", flexible="5+"),
    "groups" / array(GroupId),
    since(3, "include_authorized_operations" / Bool),
)

DescribedGroupMember = struct(
    "DescribedGroupMember",
    "member_id" / String,
    since(4, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    "client_id" / String,
    "client_host" / String,
    "member_metadata" / Bytes,  # its subscription, for the chosen protocol
    "member_assignment" / Bytes,
)

DescribedGroup = struct(
    "DescribedGroup",
    "error_code" / ErrorCode,
    since(6, default(None, "error_message" / nullable(String))),
    "group_id" / GroupId,
    "group_state" / String,
    "protocol_type" / String,
    "protocol_data" / String,  # the chosen assignor
    "members" / array(DescribedGroupMember),
    # a bit for each ACL operation; INT32_MIN when not asked for
    since(3, default(-2_147_483_648, "authorized_operations" / Int32)),
)

DescribeGroupsResponse = response(
    15,
    versions("0-6", flexible="5+"),
    since(1, "throttle_time_ms" / Int32),
    "groups" / array(DescribedGroup),
)
