"""DescribeClientQuotas."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Float64,
    Int8,
    Int32,
    String,
    array,
    nullable,
    request,
    response,
    struct,
    versions,
)

ComponentData = struct(
    "ComponentData",
    "entity_type" / String,
    "match_type" / Int8,
    "match" / nullable(String),
)

DescribeClientQuotasRequest = request(
    48,
    versions("0-1", flexible="1+"),
    "components" / array(ComponentData),
    "strict" / Bool,
)

EntityData = struct(
    "EntityData",
    "entity_type" / String,
    "entity_name" / nullable(String),
)

ValueData = struct(
    "ValueData",
    "key" / String,
    "value" / Float64,
)

EntryData = struct(
    "EntryData",
    "entity" / array(EntityData),
    "values" / array(ValueData),
)

DescribeClientQuotasResponse = response(
    48,
    versions("0-1", flexible="1+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "entries" / nullable(array(EntryData)),
)
