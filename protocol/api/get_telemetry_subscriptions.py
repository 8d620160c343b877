"""GetTelemetrySubscriptions: which metrics of its own a client is to push (KIP-714)."""

from protocol.grammar import Bool, ErrorCode, Int8, Int32, String, Uuid, array, request, response, versions

GetTelemetrySubscriptionsRequest = request(
    71,
    versions("0", flexible="0+"),
    "client_instance_id" / Uuid,  # made up by the broker; asked for with a zero id
)

GetTelemetrySubscriptionsResponse = response(
    71,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "client_instance_id" / Uuid,  # a fresh one for a zero id
    "subscription_id" / Int32,  # a hash of the metrics subscription; changes with it
    "accepted_compression_types" / array(Int8),  # most preferred first
    "push_interval_ms" / Int32,
    "telemetry_max_bytes" / Int32,
    "delta_temporality" / Bool,  # send differences, not totals
    "requested_metrics" / array(String),  # prefixes of names; an empty one means all
)
