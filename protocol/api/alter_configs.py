"""AlterConfigs."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

AlterableConfig = struct(
    "AlterableConfig",
    "name" / String,
    "value" / nullable(String),
)

AlterConfigsResource = struct(
    "AlterConfigsResource",
    "resource_type" / Int8,
    "resource_name" / String,
    "configs" / array(AlterableConfig),
)

AlterConfigsRequest = request(
    33,
    versions("0-2", flexible="2+"),
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

AlterConfigsResponse = response(
    33,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    "responses" / array(AlterConfigsResourceResponse),
)
