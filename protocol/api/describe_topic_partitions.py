"""DescribeTopicPartitions."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int32,
    TopicName,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    struct,
    versions,
)

TopicRequest = struct(
    "TopicRequest",
    "name" / TopicName,
)

Cursor = struct(
    "Cursor",
    "topic_name" / TopicName,
    "partition_index" / Int32,
)

DescribeTopicPartitionsRequest = request(
    75,
    versions("0", flexible="0+"),
    "topics" / array(TopicRequest),
    default(2000, "response_partition_limit" / Int32),
    default(None, "cursor" / nullable(Cursor)),
)

DescribeTopicPartitionsResponsePartition = struct(
    "DescribeTopicPartitionsResponsePartition",
    "error_code" / ErrorCode,
    "partition_index" / Int32,
    "leader_id" / BrokerId,
    default(-1, "leader_epoch" / Int32),
    "replica_nodes" / array(BrokerId),
    "isr_nodes" / array(BrokerId),
    default(None, "eligible_leader_replicas" / nullable(array(BrokerId))),
    default(None, "last_known_elr" / nullable(array(BrokerId))),
    "offline_replicas" / array(BrokerId),
)

DescribeTopicPartitionsResponseTopic = struct(
    "DescribeTopicPartitionsResponseTopic",
    "error_code" / ErrorCode,
    "name" / nullable(TopicName),
    "topic_id" / Uuid,
    "is_internal" / Bool,
    "partitions" / array(DescribeTopicPartitionsResponsePartition),
    default(-2_147_483_648, "topic_authorized_operations" / Int32),
)

DescribeTopicPartitionsResponse = response(
    75,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "topics" / array(DescribeTopicPartitionsResponseTopic),
    default(None, "next_cursor" / nullable(Cursor)),
)
