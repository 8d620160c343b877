"""AlterPartition: a leader asks the controller to change its in-sync replicas (KIP-497)."""

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
    default(-1, "broker_epoch" / Int64),  # of the replica, as the leader knows it
)

RequestPartitionData = struct(
    "RequestPartitionData",
    "partition_index" / Int32,
    "leader_epoch" / Int32,
    until(2, "new_isr" / array(BrokerId)),
    since(3, "new_isr_with_epochs" / array(BrokerState)),
    since(1, "leader_recovery_state" / Int8),  # 0 recovered, 1 recovering from an unclean election
    "partition_epoch" / Int32,  # version of the partition's state in the metadata store
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
    "broker_id" / BrokerId,  # the leader that proposes the change
    # changes at each registration of the broker; tells an old incarnation from a new one
    default(-1, "broker_epoch" / Int64),
    "topics" / array(RequestTopicData),
)

ResponsePartitionData = struct(
    "ResponsePartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    "leader_id" / BrokerId,  # -1 for nobody
    "leader_epoch" / Int32,
    "isr" / array(BrokerId),
    since(1, "leader_recovery_state" / Int8),  # 0 recovered, 1 recovering from an unclean election
    "partition_epoch" / Int32,  # version of the partition's state in the metadata store
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
