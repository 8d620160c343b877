"""CreateDelegationToken: a token to authenticate with, instead of the owner's credentials (KIP-48)."""

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
    since(3, "owner_principal_type" / nullable(String)),  # null for the requester itself (KIP-373)
    since(3, "owner_principal_name" / nullable(String)),
    "renewers" / array(CreatableRenewers),  # who may renew it besides the owner
    "max_lifetime_ms" / Int64,  # -1 for the broker's limit
)

CreateDelegationTokenResponse = response(
    38,
    versions("0-3", flexible="2+"),
    "error_code" / ErrorCode,
    "principal_type" / String,
    "principal_name" / String,
    since(3, "token_requester_principal_type" / String),  # who asked for the token, if not the owner
    since(3, "token_requester_principal_name" / String),  # who asked for the token, if not the owner
    "issue_timestamp_ms" / Int64,
    "expiry_timestamp_ms" / Int64,  # since the epoch
    "max_timestamp_ms" / Int64,  # past which no renewal goes
    "token_id" / String,
    "hmac" / Bytes,  # the secret half of the token
    "throttle_time_ms" / Int32,
)
