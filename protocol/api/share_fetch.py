"""ShareFetch."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    GroupId,
    Int8,
    Int16,
    Int32,
    Int64,
    Records,
    String,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

AcknowledgementBatch = struct(
    "AcknowledgementBatch",
    "first_offset" / Int64,
    "last_offset" / Int64,
    "acknowledge_types" / array(Int8),
)

FetchPartition = struct(
    "FetchPartition",
    "partition_index" / Int32,
    "acknowledgement_batches" / array(AcknowledgementBatch),
)

FetchTopic = struct(
    "FetchTopic",
    "topic_id" / Uuid,
    "partitions" / array(FetchPartition),
)

ForgottenTopic = struct(
    "ForgottenTopic",
    "topic_id" / Uuid,
    "partitions" / array(Int32),
)

ShareFetchRequest = request(
    78,
    versions("1-2", flexible="0+"),
    default(None, "group_id" / nullable(GroupId)),
    "member_id" / nullable(String),
    "share_session_epoch" / Int32,
    "max_wait_ms" / Int32,
    "min_bytes" / Int32,
    default(0x7FFFFFFF, "max_bytes" / Int32),
    "max_records" / Int32,
    "batch_size" / Int32,
    since(2, "share_acquire_mode" / Int8),
    since(2, "is_renew_ack" / Bool),
    "topics" / array(FetchTopic),
    "forgotten_topics_data" / array(ForgottenTopic),
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    "leader_id" / Int32,
    "leader_epoch" / Int32,
)

AcquiredRecords = struct(
    "AcquiredRecords",
    "first_offset" / Int64,
    "last_offset" / Int64,
    "delivery_count" / Int16,
)

PartitionData = struct(
    "PartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "acknowledge_error_code" / ErrorCode,
    default(None, "acknowledge_error_message" / nullable(String)),
    "current_leader" / LeaderIdAndEpoch,
    "records" / Records,
    "acquired_records" / array(AcquiredRecords),
)

ShareFetchableTopicResponse = struct(
    "ShareFetchableTopicResponse",
    "topic_id" / Uuid,
    "partitions" / array(PartitionData),
)

NodeEndpoint = struct(
    "NodeEndpoint",
    "node_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    default(None, "rack" / nullable(String)),
)

ShareFetchResponse = response(
    78,
    versions("1-2", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "acquisition_lock_timeout_ms" / Int32,
    "responses" / array(ShareFetchableTopicResponse),
    "node_endpoints" / array(NodeEndpoint),
)
