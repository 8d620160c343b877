"""UnregisterBroker: forgets a broker that is gone for good (KIP-500)."""

from protocol.grammar import BrokerId, ErrorCode, Int32, String, nullable, request, response, versions

UnregisterBrokerRequest = request(
    64,
    versions("0", flexible="0+"),
    "broker_id" / BrokerId,
)

UnregisterBrokerResponse = response(
    64,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)
