"""RenewDelegationToken: moves a token's expiry (KIP-48)."""

from protocol.grammar import Bytes, ErrorCode, Int32, Int64, request, response, versions

RenewDelegationTokenRequest = request(
    39,
    versions("0-2", flexible="2+"),
    "hmac" / Bytes,  # the secret half of the token
    "renew_period_ms" / Int64,  # from now
)

RenewDelegationTokenResponse = response(
    39,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "expiry_timestamp_ms" / Int64,  # since the epoch
    "throttle_time_ms" / Int32,
)
