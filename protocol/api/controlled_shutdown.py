"""ControlledShutdown."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int32,
    Int64,
    TopicName,
    array,
    default,
    request,
    response,
    since,
    struct,
    versions,
)

ControlledShutdownRequest = request(
    7,
    versions("0-3", flexible="3+"),
    "broker_id" / BrokerId,
    since(2, default(-1, "broker_epoch" / Int64)),
)

RemainingPartition = struct(
    "RemainingPartition",
    "topic_name" / TopicName,
    "partition_index" / Int32,
)

ControlledShutdownResponse = response(
    7,
    versions("0-3", flexible="3+"),
    "error_code" / ErrorCode,
    "remaining_partitions" / array(RemainingPartition),
)
