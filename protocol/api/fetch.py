"""Fetch."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    Int64,
    ProducerId,
    Records,
    String,
    TopicName,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    tagged,
    until,
    versions,
)

ReplicaState = struct(
    "ReplicaState",
    default(-1, "replica_id" / BrokerId),
    default(-1, "replica_epoch" / Int64),
)

FetchPartition = struct(
    "FetchPartition",
    "partition" / Int32,
    since(9, default(-1, "current_leader_epoch" / Int32)),
    "fetch_offset" / Int64,
    since(12, default(-1, "last_fetched_epoch" / Int32)),
    since(5, default(-1, "log_start_offset" / Int64)),
    "partition_max_bytes" / Int32,
    since(17, tagged(0, "replica_directory_id" / Uuid)),
    since(18, tagged(1, default(9_223_372_036_854_775_807, "high_watermark" / Int64))),
)

FetchTopic = struct(
    "FetchTopic",
    until(12, "topic" / TopicName),
    since(13, "topic_id" / Uuid),
    "partitions" / array(FetchPartition),
)

ForgottenTopic = struct(
    "ForgottenTopic",
    until(12, "topic" / TopicName),
    since(13, "topic_id" / Uuid),
    "partitions" / array(Int32),
)

FetchRequest = request(
    1,
    versions("0-18", flexible="12+"),
    since(12, tagged(0, default(None, "cluster_id" / nullable(String)))),
    until(14, default(-1, "replica_id" / BrokerId)),
    since(15, tagged(1, "replica_state" / ReplicaState)),
    "max_wait_ms" / Int32,
    "min_bytes" / Int32,
    since(3, default(0x7FFFFFFF, "max_bytes" / Int32)),
    since(4, "isolation_level" / Int8),
    since(7, "session_id" / Int32),
    since(7, default(-1, "session_epoch" / Int32)),
    "topics" / array(FetchTopic),
    since(7, "forgotten_topics_data" / array(ForgottenTopic)),
    since(11, "rack_id" / String),
)

EpochEndOffset = struct(
    "EpochEndOffset",
    default(-1, "epoch" / Int32),
    default(-1, "end_offset" / Int64),
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    default(-1, "leader_id" / BrokerId),
    default(-1, "leader_epoch" / Int32),
)

SnapshotId = struct(
    "SnapshotId",
    default(-1, "end_offset" / Int64),
    default(-1, "epoch" / Int32),
)

AbortedTransaction = struct(
    "AbortedTransaction",
    "producer_id" / ProducerId,
    "first_offset" / Int64,
)

PartitionData = struct(
    "PartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    "high_watermark" / Int64,
    since(4, default(-1, "last_stable_offset" / Int64)),
    since(5, default(-1, "log_start_offset" / Int64)),
    since(12, tagged(0, "diverging_epoch" / EpochEndOffset)),
    since(12, tagged(1, "current_leader" / LeaderIdAndEpoch)),
    since(12, tagged(2, "snapshot_id" / SnapshotId)),
    since(4, "aborted_transactions" / nullable(array(AbortedTransaction))),
    since(11, default(-1, "preferred_read_replica" / BrokerId)),
    "records" / nullable(Records),
)

FetchableTopicResponse = struct(
    "FetchableTopicResponse",
    until(12, "topic" / TopicName),
    since(13, "topic_id" / Uuid),
    "partitions" / array(PartitionData),
)

NodeEndpoint = struct(
    "NodeEndpoint",
    "node_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    default(None, "rack" / nullable(String)),
)

FetchResponse = response(
    1,
    versions("0-18", flexible="12+"),
    since(1, "throttle_time_ms" / Int32),
    since(7, "error_code" / ErrorCode),
    since(7, "session_id" / Int32),
    "responses" / array(FetchableTopicResponse),
    since(16, tagged(0, "node_endpoints" / array(NodeEndpoint))),
)
