"""IncrementalAlterConfigs."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

AlterableConfig = struct(
    "AlterableConfig",
    "name" / String,
    "config_operation" / Int8,
    "value" / nullable(String),
)

AlterConfigsResource = struct(
    "AlterConfigsResource",
    "resource_type" / Int8,
    "resource_name" / String,
    "configs" / array(AlterableConfig),
)

IncrementalAlterConfigsRequest = request(
    44,
    versions("0-1", flexible="1+"),
    "resources" / array(AlterConfigsResource),
    "validate_only" / Bool,
)

AlterConfigsResourceResponse = struct(
    "AlterConfigsResourceResponse",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "resource_type" / Int8,
    "resource_name" / String,
)

IncrementalAlterConfigsResponse = response(
    44,
    versions("0-1", flexible="1+"),
    "throttle_time_ms" / Int32,
    "responses" / array(AlterConfigsResourceResponse),
)
