"""OffsetForLeaderEpoch: where a leader epoch ends, to find out where logs diverge (KIP-101, KIP-320)."""

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
    # what the client knows, -1 for nothing; a mismatch is refused (KIP-320)
    since(2, default(-1, "current_leader_epoch" / Int32)),
    "leader_epoch" / Int32,  # to look up
)

OffsetForLeaderTopic = struct(
    "OffsetForLeaderTopic",
    "topic" / TopicName,
    "partitions" / array(OffsetForLeaderPartition),
)

OffsetForLeaderEpochRequest = request(
    23,
    versions("0-4", flexible="4+"),
    since(3, default(-2, "replica_id" / BrokerId)),  # -1 for a consumer, -2 where it is not said
    "topics" / array(OffsetForLeaderTopic),
)

EpochEndOffset = struct(
    "EpochEndOffset",
    "error_code" / ErrorCode,
    "partition" / Int32,
    since(1, default(-1, "leader_epoch" / Int32)),  # the largest known up to the one asked for, -1 if none
    default(-1, "end_offset" / Int64),  # where that epoch ends, -1 if none
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
