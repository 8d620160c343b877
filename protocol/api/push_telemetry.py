"""PushTelemetry: metrics that a client took of itself (KIP-714)."""

from protocol.grammar import Bool, Bytes, ErrorCode, Int8, Int32, Uuid, request, response, versions

PushTelemetryRequest = request(
    72,
    versions("0", flexible="0+"),
    "client_instance_id" / Uuid,
    "subscription_id" / Int32,  # as it was received
    "terminating" / Bool,  # this is the client's last
    "compression_type" / Int8,
    "metrics" / Bytes,  # OpenTelemetry's MetricsData, compressed as said
)

PushTelemetryResponse = response(
    72,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
)
