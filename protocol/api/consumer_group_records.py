"""consumer_group_records."""

from protocol.grammar import (
    Bytes,
    Int8,
    Int32,
    String,
    Uuid,
    array,
    default,
    nullable,
    record,
    struct,
    tagged,
    versions,
)

ConsumerGroupMetadataKey = record(
    versions("3"),
    "group_id" / String,
)

ConsumerGroupMetadataValue = record(
    versions("0", flexible="0+"),
    "epoch" / Int32,
)

ConsumerGroupPartitionMetadataKey = record(
    versions("4"),
    "group_id" / String,
)

PartitionMetadata = struct(
    "PartitionMetadata",
    "partition" / Int32,
    "racks" / array(String),
)

TopicMetadata = struct(
    "TopicMetadata",
    "topic_id" / Uuid,
    "topic_name" / String,
    "num_partitions" / Int32,
    "partition_metadata" / array(PartitionMetadata),
)

ConsumerGroupPartitionMetadataValue = record(
    versions("0", flexible="0+"),
    "topics" / array(TopicMetadata),
)

ConsumerGroupMemberMetadataKey = record(
    versions("5"),
    "group_id" / String,
    "member_id" / String,
)

ClassicProtocol = struct(
    "ClassicProtocol",
    "name" / String,
    "metadata" / Bytes,
)

ClassicMemberMetadata = struct(
    "ClassicMemberMetadata",
    "session_timeout_ms" / Int32,
    "supported_protocols" / array(ClassicProtocol),
)

ConsumerGroupMemberMetadataValue = record(
    versions("0", flexible="0+"),
    "instance_id" / nullable(String),
    "rack_id" / nullable(String),
    "client_id" / String,
    "client_host" / String,
    "subscribed_topic_names" / array(String),
    "subscribed_topic_regex" / nullable(String),
    default(-1, "rebalance_timeout_ms" / Int32),
    "server_assignor" / nullable(String),
    tagged(0, "classic_member_metadata" / nullable(ClassicMemberMetadata)),
)

ConsumerGroupTargetAssignmentMetadataKey = record(
    versions("6"),
    "group_id" / String,
)

ConsumerGroupTargetAssignmentMetadataValue = record(
    versions("0", flexible="0+"),
    "assignment_epoch" / Int32,
)

ConsumerGroupTargetAssignmentMemberKey = record(
    versions("7"),
    "group_id" / String,
    "member_id" / String,
)

TopicPartition = struct(
    "TopicPartition",
    "topic_id" / Uuid,
    "partitions" / array(Int32),
)

ConsumerGroupTargetAssignmentMemberValue = record(
    versions("0", flexible="0+"),
    "topic_partitions" / array(TopicPartition),
)

ConsumerGroupCurrentMemberAssignmentKey = record(
    versions("8"),
    "group_id" / String,
    "member_id" / String,
)

TopicPartitions = struct(
    "TopicPartitions",
    "topic_id" / Uuid,
    "partitions" / array(Int32),
)

ConsumerGroupCurrentMemberAssignmentValue = record(
    versions("0", flexible="0+"),
    "member_epoch" / Int32,
    "previous_member_epoch" / Int32,
    "state" / Int8,
    "assigned_partitions" / array(TopicPartitions),
    "partitions_pending_revocation" / array(TopicPartitions),
)
