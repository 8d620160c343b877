"""DeleteGroups: empty ones (KIP-229)."""

from protocol.grammar import ErrorCode, GroupId, Int32, array, request, response, struct, versions

DeleteGroupsRequest = request(
    42,
    versions("0-2", flexible="2+"),
    "groups_names" / array(GroupId),
)

DeletableGroupResult = struct(
    "DeletableGroupResult",
    "group_id" / GroupId,
    "error_code" / ErrorCode,
)

DeleteGroupsResponse = response(
    42,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    "results" / array(DeletableGroupResult),
)
