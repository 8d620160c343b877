"""ExpireDelegationToken."""

from protocol.grammar import Bytes, ErrorCode, Int32, Int64, request, response, versions

ExpireDelegationTokenRequest = request(
    40,
    versions("0-2", flexible="2+"),
    "hmac" / Bytes,
    "expiry_time_period_ms" / Int64,
)

ExpireDelegationTokenResponse = response(
    40,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "expiry_timestamp_ms" / Int64,
    "throttle_time_ms" / Int32,
)
