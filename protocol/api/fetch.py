"""Fetch: records, for consumers and for followers.

Up to v12 topics go by name, since v13 by id (KIP-516). v7 brought fetch sessions (KIP-227): a request then names only
what has changed, a response only partitions with something to say.
"""

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
    default(-1, "replica_id" / BrokerId),  # -1 for a consumer, a broker's id for a follower
    default(-1, "replica_epoch" / Int64),  # broker epoch of the follower (KIP-903)
)

FetchPartition = struct(
    "FetchPartition",
    "partition" / Int32,
    # what the client knows, -1 for nothing; a mismatch is refused (KIP-320)
    since(9, default(-1, "current_leader_epoch" / Int32)),
    "fetch_offset" / Int64,
    since(12, default(-1, "last_fetched_epoch" / Int32)),  # of the follower's last record, for KIP-595 truncation
    since(5, default(-1, "log_start_offset" / Int64)),  # of the follower; -1 from a consumer
    "partition_max_bytes" / Int32,  # at least one batch comes, even if it is larger
    since(17, tagged(0, "replica_directory_id" / Uuid)),  # of the KRaft replica (KIP-853)
    since(18, tagged(1, default(9_223_372_036_854_775_807, "high_watermark" / Int64))),  # of the follower (KIP-1166)
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
    since(12, tagged(0, default(None, "cluster_id" / nullable(String)))),  # between KRaft controllers
    until(14, default(-1, "replica_id" / BrokerId)),  # -1 for a consumer, a broker's id for a follower
    since(15, tagged(1, "replica_state" / ReplicaState)),
    "max_wait_ms" / Int32,  # for min_bytes to gather
    "min_bytes" / Int32,
    since(3, default(0x7FFFFFFF, "max_bytes" / Int32)),  # of all partitions together
    since(4, "isolation_level" / Int8),  # 0 read_uncommitted, 1 read_committed
    since(7, "session_id" / Int32),  # 0 for none, or to open one (KIP-227)
    since(7, default(-1, "session_epoch" / Int32)),  # 0 opens a session, -1 is a fetch without one
    "topics" / array(FetchTopic),  # in a session, only what has changed
    since(7, "forgotten_topics_data" / array(ForgottenTopic)),  # what the session is to drop
    since(11, "rack_id" / String),  # where the client is, to prefer replicas near it (KIP-392)
)

EpochEndOffset = struct(
    "EpochEndOffset",
    default(-1, "epoch" / Int32),
    default(-1, "end_offset" / Int64),
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    default(-1, "leader_id" / BrokerId),  # -1 for nobody
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
    "first_offset" / Int64,  # of the transaction in this partition
)

PartitionData = struct(
    "PartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    "high_watermark" / Int64,
    since(4, default(-1, "last_stable_offset" / Int64)),  # all transactions below it are decided
    since(5, default(-1, "log_start_offset" / Int64)),
    since(12, tagged(0, "diverging_epoch" / EpochEndOffset)),  # where the logs part, for KIP-595 truncation
    # sent with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH (KIP-951)
    since(12, tagged(1, "current_leader" / LeaderIdAndEpoch)),
    since(12, tagged(2, "snapshot_id" / SnapshotId)),  # to fetch instead, of the KRaft metadata log
    # among these records; null for read_uncommitted
    since(4, "aborted_transactions" / nullable(array(AbortedTransaction))),
    since(11, default(-1, "preferred_read_replica" / BrokerId)),  # fetch from there instead (KIP-392); -1 for from here
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
    since(7, "session_id" / Int32),  # 0 if there is no session
    "responses" / array(FetchableTopicResponse),
    since(16, tagged(0, "node_endpoints" / array(NodeEndpoint))),  # where the leaders named above are reached (KIP-951)
)
