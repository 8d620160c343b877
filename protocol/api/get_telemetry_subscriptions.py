"""GetTelemetrySubscriptions."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, Uuid, array, request, response, versions

GetTelemetrySubscriptionsRequest = request(
    71,
    versions("0", flexible="0+"),
    "client_instance_id" / Uuid,
)

GetTelemetrySubscriptionsResponse = response(
    71,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "client_instance_id" / Uuid,
    "subscription_id" / Int32,
    "accepted_compression_types" / array(Int8),
    "push_interval_ms" / Int32,
    "telemetry_max_bytes" / Int32,
    "delta_temporality" / Bool,
    "requested_metrics" / array(String),
)
