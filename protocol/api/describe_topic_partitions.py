"""DescribeTopicPartitions: Metadata in pages (KIP-966)."""

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
    default(2000, "response_partition_limit" / Int32),  # the rest is fetched with the cursor
    default(None, "cursor" / nullable(Cursor)),  # where to go on, null for the beginning
)

DescribeTopicPartitionsResponsePartition = struct(
    "DescribeTopicPartitionsResponsePartition",
    "error_code" / ErrorCode,
    "partition_index" / Int32,
    "leader_id" / BrokerId,  # -1 for nobody
    default(-1, "leader_epoch" / Int32),
    "replica_nodes" / array(BrokerId),
    "isr_nodes" / array(BrokerId),  # the replicas that are in sync
    # out of the ISR, but with every committed record (KIP-966)
    default(None, "eligible_leader_replicas" / nullable(array(BrokerId))),
    default(None, "last_known_elr" / nullable(array(BrokerId))),
    "offline_replicas" / array(BrokerId),  # on brokers or directories that are down
)

DescribeTopicPartitionsResponseTopic = struct(
    "DescribeTopicPartitionsResponseTopic",
    "error_code" / ErrorCode,
    "name" / nullable(TopicName),
    "topic_id" / Uuid,
    "is_internal" / Bool,  # whether the broker keeps its own state in it, as in __consumer_offsets
    "partitions" / array(DescribeTopicPartitionsResponsePartition),
    # a bit for each ACL operation; INT32_MIN when not asked for
    default(-2_147_483_648, "topic_authorized_operations" / Int32),
)

DescribeTopicPartitionsResponse = response(
    75,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "topics" / array(DescribeTopicPartitionsResponseTopic),
    default(None, "next_cursor" / nullable(Cursor)),  # null at the end
)
