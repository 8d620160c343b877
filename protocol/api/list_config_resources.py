"""ListConfigResources: v0 lists client metrics subscriptions (KIP-714), v1 any resource (KIP-1142)."""

from protocol.grammar import ErrorCode, Int8, Int32, String, array, default, request, response, since, struct, versions

ListConfigResourcesRequest = request(
    74,
    versions("0-1", flexible="0+"),
    since(1, "resource_types" / array(Int8)),  # all of them if empty
)

ConfigResource = struct(
    "ConfigResource",
    "resource_name" / String,
    # a ConfigResource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group
    since(1, default(16, "resource_type" / Int8)),
)

ListConfigResourcesResponse = response(
    74,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "config_resources" / array(ConfigResource),
)
