"""RenewDelegationToken."""

from protocol.grammar import Bytes, ErrorCode, Int32, Int64, request, response, versions

RenewDelegationTokenRequest = request(
    39,
    versions("0-2", flexible="2+"),
    "hmac" / Bytes,
    "renew_period_ms" / Int64,
)

RenewDelegationTokenResponse = response(
    39,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "expiry_timestamp_ms" / Int64,
    "throttle_time_ms" / Int32,
)
