"""OffsetCommit: how far a group has consumed. Also for single consumers, with generation -1 and no member id."""

from protocol.grammar import (
    ErrorCode,
    GroupId,
    Int32,
    Int64,
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
    until,
    versions,
)

OffsetCommitRequestPartition = struct(
    "OffsetCommitRequestPartition",
    "partition_index" / Int32,
    "committed_offset" / Int64,
    since(6, default(-1, "committed_leader_epoch" / Int32)),  # of the last consumed record, -1 if unknown
    since(1, until(1, default(-1, "commit_timestamp" / Int64))),  # -1 for now
    "committed_metadata" / nullable(String),  # free text of the client
)

OffsetCommitRequestTopic = struct(
    "OffsetCommitRequestTopic",
    until(9, "name" / TopicName),
    since(10, "topic_id" / Uuid),
    "partitions" / array(OffsetCommitRequestPartition),
)

OffsetCommitRequest = request(
    8,
    versions("0-10", flexible="8+"),
    "group_id" / GroupId,
    since(1, default(-1, "generation_id_or_member_epoch" / Int32)),  # -1 for a commit outside of any group
    since(1, "member_id" / String),
    since(7, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    since(2, until(4, default(-1, "retention_time_ms" / Int64))),  # -1 for the broker's offsets.retention.minutes
    "topics" / array(OffsetCommitRequestTopic),
)

OffsetCommitResponsePartition = struct(
    "OffsetCommitResponsePartition",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

OffsetCommitResponseTopic = struct(
    "OffsetCommitResponseTopic",
    until(9, "name" / TopicName),
    since(10, "topic_id" / Uuid),
    "partitions" / array(OffsetCommitResponsePartition),
)

OffsetCommitResponse = response(
    8,
    versions("0-10", flexible="8+"),
    since(3, "throttle_time_ms" / Int32),
    "topics" / array(OffsetCommitResponseTopic),
)
