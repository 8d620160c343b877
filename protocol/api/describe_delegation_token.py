"""DescribeDelegationToken."""

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
    "owners" / nullable(array(DescribeDelegationTokenOwner)),
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
    since(3, "token_requester_principal_type" / String),
    since(3, "token_requester_principal_name" / String),
    "issue_timestamp" / Int64,
    "expiry_timestamp" / Int64,
    "max_timestamp" / Int64,
    "token_id" / String,
    "hmac" / Bytes,
    "renewers" / array(DescribedDelegationTokenRenewer),
)

DescribeDelegationTokenResponse = response(
    41,
    versions("0-3", flexible="2+"),
    "error_code" / ErrorCode,
    "tokens" / array(DescribedDelegationToken),
    "throttle_time_ms" / Int32,
)
