"""FindCoordinator: which broker coordinates a group, a transactional id or a share group."""

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
    until(3, "key" / String),  # a group id or transactional id
    since(1, "key_type" / Int8),  # 0 group, 1 transaction, 2 share
    since(4, "coordinator_keys" / array(String)),  # many at once, and of one type (KIP-699)
)

Coordinator = struct(
    "Coordinator",
    "key" / String,  # group or transactional id, or group:topicId:partition
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
