"""ExpireDelegationToken: ends a token's life earlier (KIP-48)."""

from protocol.grammar import Bytes, ErrorCode, Int32, Int64, request, response, versions

ExpireDelegationTokenRequest = request(
    40,
    versions("0-2", flexible="2+"),
    "hmac" / Bytes,  # the secret half of the token
    "expiry_time_period_ms" / Int64,  # from now; negative expires it at once
)

ExpireDelegationTokenResponse = response(
    40,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "expiry_timestamp_ms" / Int64,  # since the epoch
    "throttle_time_ms" / Int32,
)
