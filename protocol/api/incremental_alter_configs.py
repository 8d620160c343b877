"""IncrementalAlterConfigs: sets, resets, and edits lists (KIP-339)."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, array, nullable, request, response, struct, versions

AlterableConfig = struct(
    "AlterableConfig",
    "name" / String,  # of the config
    "config_operation" / Int8,  # 0 set, 1 delete, 2 append, 3 subtract
    "value" / nullable(String),  # null where it has none, as for a deletion
)

AlterConfigsResource = struct(
    "AlterConfigsResource",
    "resource_type" / Int8,  # a ConfigResource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group
    "resource_name" / String,
    "configs" / array(AlterableConfig),
)

IncrementalAlterConfigsRequest = request(
    44,
    versions("0-1", flexible="1+"),
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

IncrementalAlterConfigsResponse = response(
    44,
    versions("0-1", flexible="1+"),
    "throttle_time_ms" / Int32,
    "responses" / array(AlterConfigsResourceResponse),
)
