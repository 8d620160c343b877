"""TxnOffsetCommit: offsets that count once the producer's transaction commits (KIP-98, KIP-447)."""

from protocol.grammar import (
    ErrorCode,
    GroupId,
    Int16,
    Int32,
    Int64,
    ProducerId,
    String,
    TopicName,
    TransactionalId,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

TxnOffsetCommitRequestPartition = struct(
    "TxnOffsetCommitRequestPartition",
    "partition_index" / Int32,
    "committed_offset" / Int64,
    since(2, default(-1, "committed_leader_epoch" / Int32)),  # of the last consumed record, -1 if unknown
    "committed_metadata" / nullable(String),  # free text of the client
)

TxnOffsetCommitRequestTopic = struct(
    "TxnOffsetCommitRequestTopic",
    "name" / TopicName,
    "partitions" / array(TxnOffsetCommitRequestPartition),
)

TxnOffsetCommitRequest = request(
    28,
    versions("0-5", flexible="3+"),
    "transactional_id" / TransactionalId,
    "group_id" / GroupId,
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    since(3, default(-1, "generation_id" / Int32)),  # -1 where it is not checked (KIP-447)
    since(3, "member_id" / String),
    since(3, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    "topics" / array(TxnOffsetCommitRequestTopic),
)

TxnOffsetCommitResponsePartition = struct(
    "TxnOffsetCommitResponsePartition",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

TxnOffsetCommitResponseTopic = struct(
    "TxnOffsetCommitResponseTopic",
    "name" / TopicName,
    "partitions" / array(TxnOffsetCommitResponsePartition),
)

TxnOffsetCommitResponse = response(
    28,
    versions("0-5", flexible="3+"),
    "throttle_time_ms" / Int32,
    "topics" / array(TxnOffsetCommitResponseTopic),
)
