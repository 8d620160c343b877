"""CreateDelegationToken."""

from protocol.grammar import (
    Bytes,
    ErrorCode,
    Int32,
    Int64,
    String,
    array,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

CreatableRenewers = struct(
    "CreatableRenewers",
    "principal_type" / String,
    "principal_name" / String,
)

CreateDelegationTokenRequest = request(
    38,
    versions("0-3", flexible="2+"),
    since(3, "owner_principal_type" / nullable(String)),
    since(3, "owner_principal_name" / nullable(String)),
    "renewers" / array(CreatableRenewers),
    "max_lifetime_ms" / Int64,
)

CreateDelegationTokenResponse = response(
    38,
    versions("0-3", flexible="2+"),
    "error_code" / ErrorCode,
    "principal_type" / String,
    "principal_name" / String,
    since(3, "token_requester_principal_type" / String),
    since(3, "token_requester_principal_name" / String),
    "issue_timestamp_ms" / Int64,
    "expiry_timestamp_ms" / Int64,
    "max_timestamp_ms" / Int64,
    "token_id" / String,
    "hmac" / Bytes,
    "throttle_time_ms" / Int32,
)
