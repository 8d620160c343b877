"""SaslAuthenticate: one step of the mechanism's exchange (KIP-152)."""

from protocol.grammar import Bytes, ErrorCode, Int64, String, nullable, request, response, since, versions

SaslAuthenticateRequest = request(
    36,
    versions("0-2", flexible="2+"),
    "auth_bytes" / Bytes,  # what the mechanism says next
)

SaslAuthenticateResponse = response(
    36,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "auth_bytes" / Bytes,  # what the mechanism says next
    since(1, "session_lifetime_ms" / Int64),  # authenticate again before; 0 for never (KIP-368)
)
