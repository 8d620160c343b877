"""DescribeDelegationToken: by owner (KIP-48)."""

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

DescribeDelegationTokenOwner = struct(
    "DescribeDelegationTokenOwner",
    "principal_type" / String,
    "principal_name" / String,
)

DescribeDelegationTokenRequest = request(
    41,
    versions("0-3", flexible="2+"),
    "owners" / nullable(array(DescribeDelegationTokenOwner)),  # null for all that the requester may see
)

DescribedDelegationTokenRenewer = struct(
    "DescribedDelegationTokenRenewer",
    "principal_type" / String,
    "principal_name" / String,
)

DescribedDelegationToken = struct(
    "DescribedDelegationToken",
    "principal_type" / String,
    "principal_name" / String,
    since(3, "token_requester_principal_type" / String),  # who asked for the token, if not the owner
    since(3, "token_requester_principal_name" / String),  # who asked for the token, if not the owner
    "issue_timestamp" / Int64,
    "expiry_timestamp" / Int64,
    "max_timestamp" / Int64,  # past which no renewal goes
    "token_id" / String,
    "hmac" / Bytes,  # the secret half of the token
    "renewers" / array(DescribedDelegationTokenRenewer),
)

DescribeDelegationTokenResponse = response(
    41,
    versions("0-3", flexible="2+"),
    "error_code" / ErrorCode,
    "tokens" / array(DescribedDelegationToken),
    "throttle_time_ms" / Int32,
)
