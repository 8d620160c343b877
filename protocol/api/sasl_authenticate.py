"""SaslAuthenticate."""

from protocol.grammar import Bytes, ErrorCode, Int64, String, nullable, request, response, since, versions

SaslAuthenticateRequest = request(
    36,
    versions("0-2", flexible="2+"),
    "auth_bytes" / Bytes,
)

SaslAuthenticateResponse = response(
    36,
    versions("0-2", flexible="2+"),
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "auth_bytes" / Bytes,
    since(1, "session_lifetime_ms" / Int64),
)
