"""What __consumer_offsets holds of groups of the consumer protocol (KIP-848)."""

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
    "racks" / array(String),  # of its replicas
)

TopicMetadata = struct(
    "TopicMetadata",
    "topic_id" / Uuid,
    "topic_name" / String,
    "num_partitions" / Int32,  # -1 for the broker's default, or where assignments are given
    "partition_metadata" / array(PartitionMetadata),  # by partition, where racks are known
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
    "name" / String,  # of the assignment strategy, such as range
    "metadata" / Bytes,
)

ClassicMemberMetadata = struct(
    "ClassicMemberMetadata",
    "session_timeout_ms" / Int32,  # how long a member may be silent
    "supported_protocols" / array(ClassicProtocol),  # as it sent them in JoinGroup
)

ConsumerGroupMemberMetadataValue = record(
    versions("0", flexible="0+"),
    "instance_id" / nullable(String),  # set for static members
    "rack_id" / nullable(String),
    "client_id" / String,
    "client_host" / String,
    "subscribed_topic_names" / array(String),
    "subscribed_topic_regex" / nullable(String),  # RE2 syntax
    default(-1, "rebalance_timeout_ms" / Int32),  # how long a rebalance waits for the member
    "server_assignor" / nullable(String),
    tagged(0, "classic_member_metadata" / nullable(ClassicMemberMetadata)),  # for members that use the classic protocol
)

ConsumerGroupTargetAssignmentMetadataKey = record(
    versions("6"),
    "group_id" / String,
)

ConsumerGroupTargetAssignmentMetadataValue = record(
    versions("0", flexible="0+"),
    "assignment_epoch" / Int32,  # of the target assignment
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
    "member_epoch" / Int32,  # what the member last acknowledged
    "previous_member_epoch" / Int32,  # accepted too, while its answer may be on the way
    "state" / Int8,  # stable, or what it waits for
    "assigned_partitions" / array(TopicPartitions),
    "partitions_pending_revocation" / array(TopicPartitions),  # to be given up by the member
)
