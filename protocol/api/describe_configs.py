"""DescribeConfigs: effective values, and where they come from (KIP-133)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int8,
    Int32,
    String,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

DescribeConfigsResource = struct(
    "DescribeConfigsResource",
    "resource_type" / Int8,  # a ConfigResource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group
    "resource_name" / String,
    "configuration_keys" / nullable(array(String)),  # null for all
)

DescribeConfigsRequest = request(
    32,
    versions("0-4", flexible="4+"),
    "resources" / array(DescribeConfigsResource),
    since(1, "include_synonyms" / Bool),
    since(3, "include_documentation" / Bool),
)

DescribeConfigsSynonym = struct(
    "DescribeConfigsSynonym",
    "name" / String,  # of the config that the value may come from
    "value" / nullable(String),
    "source" / Int8,  # a ConfigSource
)

DescribeConfigsResourceResult = struct(
    "DescribeConfigsResourceResult",
    "name" / String,  # of the config
    "value" / nullable(String),
    "read_only" / Bool,
    until(0, "is_default" / Bool),
    # a ConfigSource: 1 topic, 2 broker, 3 all brokers, 4 static, 5 default
    since(1, default(-1, "config_source" / Int8)),
    "is_sensitive" / Bool,  # its value is never sent
    since(1, "synonyms" / array(DescribeConfigsSynonym)),  # where else the value could come from, strongest first
    since(3, "config_type" / Int8),  # a ConfigType, as in 1 boolean, 2 string
    since(3, "documentation" / nullable(String)),
)

DescribeConfigsResult = struct(
    "DescribeConfigsResult",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "resource_type" / Int8,
    "resource_name" / String,
    "configs" / array(DescribeConfigsResourceResult),
)

DescribeConfigsResponse = response(
    32,
    versions("0-4", flexible="4+"),
    "throttle_time_ms" / Int32,
    "results" / array(DescribeConfigsResult),
)
