"""SaslHandshake: picks the mechanism.

After v0 the exchange follows without Kafka's headers, after v1 in SaslAuthenticate (KIP-152).
"""

from protocol.grammar import ErrorCode, String, array, request, response, versions

SaslHandshakeRequest = request(
    17,
    versions("0-1"),
    "mechanism" / String,
)

SaslHandshakeResponse = response(
    17,
    versions("0-1"),
    "error_code" / ErrorCode,
    "mechanisms" / array(String),  # what the listener offers
)
