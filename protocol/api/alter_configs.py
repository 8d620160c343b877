"""AlterConfigs: replaces all configs of a resource. IncrementalAlterConfigs has followed it."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

AlterableConfig = struct(
    "AlterableConfig",
    "name" / String,  # of the config
    "value" / nullable(String),  # null where it has none, as for a deletion
)

AlterConfigsResource = struct(
    "AlterConfigsResource",
    "resource_type" / Int8,  # a ConfigResource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group
    "resource_name" / String,
    "configs" / array(AlterableConfig),  # all of them: what is not named here is reset
)

AlterConfigsRequest = request(
    33,
    versions("0-2", flexible="2+"),
    "resources" / array(AlterConfigsResource),
    "validate_only" / Bool,  # check everything, change nothing
)

AlterConfigsResourceResponse = struct(
    "AlterConfigsResourceResponse",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "resource_type" / Int8,
    "resource_name" / String,
)

AlterConfigsResponse = response(
    33,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    "responses" / array(AlterConfigsResourceResponse),
)
