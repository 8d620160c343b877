"""FindCoordinator."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    String,
    array,
    nullable,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

FindCoordinatorRequest = request(
    10,
    versions("0-6", flexible="3+"),
    until(3, "key" / String),
    since(1, "key_type" / Int8),
    since(4, "coordinator_keys" / array(String)),
)

Coordinator = struct(
    "Coordinator",
    "key" / String,
    "node_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

FindCoordinatorResponse = response(
    10,
    versions("0-6", flexible="3+"),
    since(1, "throttle_time_ms" / Int32),
    until(3, "error_code" / ErrorCode),
    since(1, until(3, "error_message" / nullable(String))),
    until(3, "node_id" / BrokerId),
    until(3, "host" / String),
    until(3, "port" / Int32),
    since(4, "coordinators" / array(Coordinator)),
)
