"""OffsetForLeaderEpoch."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int32,
    Int64,
    TopicName,
    array,
    default,
    request,
    response,
    since,
    struct,
    versions,
)

OffsetForLeaderPartition = struct(
    "OffsetForLeaderPartition",
    "partition" / Int32,
    since(2, default(-1, "current_leader_epoch" / Int32)),
    "leader_epoch" / Int32,
)

OffsetForLeaderTopic = struct(
    "OffsetForLeaderTopic",
    "topic" / TopicName,
    "partitions" / array(OffsetForLeaderPartition),
)

OffsetForLeaderEpochRequest = request(
    23,
    versions("0-4", flexible="4+"),
    since(3, default(-2, "replica_id" / BrokerId)),
    "topics" / array(OffsetForLeaderTopic),
)

EpochEndOffset = struct(
    "EpochEndOffset",
    "error_code" / ErrorCode,
    "partition" / Int32,
    since(1, default(-1, "leader_epoch" / Int32)),
    default(-1, "end_offset" / Int64),
)

OffsetForLeaderTopicResult = struct(
    "OffsetForLeaderTopicResult",
    "topic" / TopicName,
    "partitions" / array(EpochEndOffset),
)

OffsetForLeaderEpochResponse = response(
    23,
    versions("0-4", flexible="4+"),
    since(2, "throttle_time_ms" / Int32),
    "topics" / array(OffsetForLeaderTopicResult),
)
