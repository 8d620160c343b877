"""DescribeClientQuotas: by components of the entity (KIP-546)."""

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
    "entity_type" / String,  # user, client-id or ip
    "match_type" / Int8,  # 0 this name, 1 the default, 2 any name
    "match" / nullable(String),  # the name, for match type 0
)

DescribeClientQuotasRequest = request(
    48,
    versions("0-1", flexible="1+"),
    "components" / array(ComponentData),
    "strict" / Bool,  # leave out entities with further components
)

EntityData = struct(
    "EntityData",
    "entity_type" / String,  # user, client-id or ip
    "entity_name" / nullable(String),  # null for the default of this type
)

ValueData = struct(
    "ValueData",
    "key" / String,  # of the quota, as in producer_byte_rate
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
