"""StopReplica: the ZooKeeper-mode controller tells a broker to stop replicas, and perhaps to delete them."""

from protocol.grammar import (
    Bool,
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
    until,
    versions,
)

StopReplicaPartitionV0 = struct(
    "StopReplicaPartitionV0",
    "topic_name" / TopicName,
    "partition_index" / Int32,
)

StopReplicaTopicV1 = struct(
    "StopReplicaTopicV1",
    "name" / TopicName,
    "partition_indexes" / array(Int32),
)

StopReplicaPartitionState = struct(
    "StopReplicaPartitionState",
    "partition_index" / Int32,
    default(-1, "leader_epoch" / Int32),
    "delete_partition" / Bool,  # the log too
)

StopReplicaTopicState = struct(
    "StopReplicaTopicState",
    "topic_name" / TopicName,
    "partition_states" / array(StopReplicaPartitionState),
)

StopReplicaRequest = request(
    5,
    versions("0-4", flexible="2+"),
    "controller_id" / BrokerId,
    since(4, "is_kraft_controller" / Bool),  # whether the sender is a KRaft controller, during a migration
    "controller_epoch" / Int32,  # of the sender; brokers ignore an older controller
    # changes at each registration of the broker; tells an old incarnation from a new one
    since(1, default(-1, "broker_epoch" / Int64)),
    until(2, "delete_partitions" / Bool),  # the logs too
    until(0, "ungrouped_partitions" / array(StopReplicaPartitionV0)),
    since(1, until(2, "topics" / array(StopReplicaTopicV1))),
    since(3, "topic_states" / array(StopReplicaTopicState)),
)

StopReplicaPartitionError = struct(
    "StopReplicaPartitionError",
    "topic_name" / TopicName,
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

StopReplicaResponse = response(
    5,
    versions("0-4", flexible="2+"),
    "error_code" / ErrorCode,
    "partition_errors" / array(StopReplicaPartitionError),
)
