"""ListGroups: the groups that this broker coordinates."""

from protocol.grammar import ErrorCode, GroupId, Int32, String, array, request, response, since, struct, versions

ListGroupsRequest = request(
    16,
    versions("0-5", flexible="3+"),
    since(4, "states_filter" / array(String)),  # all states if empty
    since(5, "types_filter" / array(String)),  # all types if empty
)

ListedGroup = struct(
    "ListedGroup",
    "group_id" / GroupId,
    "protocol_type" / String,  # "consumer" for consumers
    since(4, "group_state" / String),
    since(5, "group_type" / String),
)

ListGroupsResponse = response(
    16,
    versions("0-5", flexible="3+"),
    since(1, "throttle_time_ms" / Int32),
    "error_code" / ErrorCode,
    "groups" / array(ListedGroup),
)
