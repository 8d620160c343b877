"""AlterPartition."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    Int64,
    TopicName,
    Uuid,
    array,
    default,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

BrokerState = struct(
    "BrokerState",
    "broker_id" / BrokerId,
    default(-1, "broker_epoch" / Int64),
)

RequestPartitionData = struct(
    "RequestPartitionData",
    "partition_index" / Int32,
    "leader_epoch" / Int32,
    until(2, "new_isr" / array(BrokerId)),
    since(3, "new_isr_with_epochs" / array(BrokerState)),
    since(1, "leader_recovery_state" / Int8),
    "partition_epoch" / Int32,
)

RequestTopicData = struct(
    "RequestTopicData",
    until(1, "topic_name" / TopicName),
    since(2, "topic_id" / Uuid),
    "partitions" / array(RequestPartitionData),
)

AlterPartitionRequest = request(
    56,
    versions("0-3", flexible="0+"),
    "broker_id" / BrokerId,
    default(-1, "broker_epoch" / Int64),
    "topics" / array(RequestTopicData),
)

ResponsePartitionData = struct(
    "ResponsePartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    "leader_id" / BrokerId,
    "leader_epoch" / Int32,
    "isr" / array(BrokerId),
    since(1, "leader_recovery_state" / Int8),
    "partition_epoch" / Int32,
)

ResponseTopicData = struct(
    "ResponseTopicData",
    until(1, "topic_name" / TopicName),
    since(2, "topic_id" / Uuid),
    "partitions" / array(ResponsePartitionData),
)

AlterPartitionResponse = response(
    56,
    versions("0-3", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "topics" / array(ResponseTopicData),
)
