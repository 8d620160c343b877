"""ShareAcknowledge: what became of records of a share group (KIP-932).

Declared from v1, the first stable version; the v0 of Apache Kafka 3.9 was early access and never enabled by default.
"""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    GroupId,
    Int8,
    Int32,
    Int64,
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

AcknowledgePartition = struct(
    "AcknowledgePartition",
    "partition_index" / Int32,
    "acknowledgement_batches" / array(AcknowledgementBatch),
)

AcknowledgeTopic = struct(
    "AcknowledgeTopic",
    "topic_id" / Uuid,
    "partitions" / array(AcknowledgePartition),
)

ShareAcknowledgeRequest = request(
    79,
    versions("1-2", flexible="0+"),
    default(None, "group_id" / nullable(GroupId)),
    "member_id" / nullable(String),
    "share_session_epoch" / Int32,  # -1 closes the session
    since(2, "is_renew_ack" / Bool),  # whether any acknowledgement is of type renew
    "topics" / array(AcknowledgeTopic),
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    "leader_id" / Int32,  # -1 for nobody
    "leader_epoch" / Int32,
)

PartitionData = struct(
    "PartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "current_leader" / LeaderIdAndEpoch,  # -1, -1 unless the leader is another (KIP-951)
)

ShareAcknowledgeTopicResponse = struct(
    "ShareAcknowledgeTopicResponse",
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

ShareAcknowledgeResponse = response(
    79,
    versions("1-2", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    since(2, "acquisition_lock_timeout_ms" / Int32),  # how long acquired records stay locked
    "responses" / array(ShareAcknowledgeTopicResponse),
    "node_endpoints" / array(NodeEndpoint),  # where the leaders named above are reached (KIP-951)
)
