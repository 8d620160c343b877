"""DescribeConfigs."""

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
    "resource_type" / Int8,
    "resource_name" / String,
    "configuration_keys" / nullable(array(String)),
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
    "name" / String,
    "value" / nullable(String),
    "source" / Int8,
)

DescribeConfigsResourceResult = struct(
    "DescribeConfigsResourceResult",
    "name" / String,
    "value" / nullable(String),
    "read_only" / Bool,
    until(0, "is_default" / Bool),
    since(1, default(-1, "config_source" / Int8)),
    "is_sensitive" / Bool,
    since(1, "synonyms" / array(DescribeConfigsSynonym)),
    since(3, "config_type" / Int8),
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
