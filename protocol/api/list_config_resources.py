"""ListConfigResources."""

from protocol.grammar import ErrorCode, Int8, Int32, String, array, default, request, response, since, struct, versions

ListConfigResourcesRequest = request(
    74,
    versions("0-1", flexible="0+"),
    since(1, "resource_types" / array(Int8)),
)

ConfigResource = struct(
    "ConfigResource",
    "resource_name" / String,
    since(1, default(16, "resource_type" / Int8)),
)

ListConfigResourcesResponse = response(
    74,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "config_resources" / array(ConfigResource),
)
