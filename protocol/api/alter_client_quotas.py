"""AlterClientQuotas: sets and removes quotas of users, client ids and addresses (KIP-546)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Float64,
    Int32,
    String,
    array,
    nullable,
    request,
    response,
    struct,
    versions,
)

EntityData = struct(
    "EntityData",
    "entity_type" / String,  # user, client-id or ip
    "entity_name" / nullable(String),  # null for the default of this type
)

OpData = struct(
    "OpData",
    "key" / String,  # of the quota, as in producer_byte_rate
    "value" / Float64,
    "remove" / Bool,
)

RequestEntryData = struct(
    "RequestEntryData",
    "entity" / array(EntityData),
    "ops" / array(OpData),
)

AlterClientQuotasRequest = request(
    49,
    versions("0-1", flexible="1+"),
    "entries" / array(RequestEntryData),
    "validate_only" / Bool,  # check everything, change nothing
)

ResponseEntryData = struct(
    "ResponseEntryData",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "entity" / array(EntityData),
)

AlterClientQuotasResponse = response(
    49,
    versions("0-1", flexible="1+"),
    "throttle_time_ms" / Int32,
    "entries" / array(ResponseEntryData),
)
