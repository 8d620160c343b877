"""ShareFetch: records for a member of a share group (KIP-932).

Declared from v1, the first stable version; the v0 of Apache Kafka 3.9 was early access and never enabled by default.
"""

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
    "last_offset" / Int64,  # inclusive
    # one for each offset, or a single one for all: 0 gap, 1 accept, 2 release, 3 reject, 4 renew
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
    "share_session_epoch" / Int32,  # 0 opens a session, -1 closes it
    "max_wait_ms" / Int32,  # for min_bytes to gather
    "min_bytes" / Int32,
    default(0x7FFFFFFF, "max_bytes" / Int32),
    "max_records" / Int32,  # to acquire at most; batch boundaries may exceed it
    "batch_size" / Int32,  # records in a batch of acquired ones, ideally
    since(2, "share_acquire_mode" / Int8),  # 0 whole batches, 1 max_records exactly
    since(2, "is_renew_ack" / Bool),  # whether any acknowledgement is of type renew
    "topics" / array(FetchTopic),
    "forgotten_topics_data" / array(ForgottenTopic),  # what the session is to drop
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    "leader_id" / Int32,  # -1 for nobody
    "leader_epoch" / Int32,
)

AcquiredRecords = struct(
    "AcquiredRecords",
    "first_offset" / Int64,
    "last_offset" / Int64,  # inclusive
    "delivery_count" / Int16,  # how often they were handed out
)

PartitionData = struct(
    "PartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "acknowledge_error_code" / ErrorCode,
    default(None, "acknowledge_error_message" / nullable(String)),
    "current_leader" / LeaderIdAndEpoch,  # -1, -1 unless the leader is another (KIP-951)
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
    "acquisition_lock_timeout_ms" / Int32,  # how long acquired records stay locked
    "responses" / array(ShareFetchableTopicResponse),
    "node_endpoints" / array(NodeEndpoint),  # where the leaders named above are reached (KIP-951)
)
