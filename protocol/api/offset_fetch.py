"""OffsetFetch."""

from protocol.grammar import (
    Bool,
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

OffsetFetchRequestTopic = struct(
    "OffsetFetchRequestTopic",
    "name" / TopicName,
    "partition_indexes" / array(Int32),
)

OffsetFetchRequestTopics = struct(
    "OffsetFetchRequestTopics",
    until(9, "name" / TopicName),
    since(10, "topic_id" / Uuid),
    "partition_indexes" / array(Int32),
)

OffsetFetchRequestGroup = struct(
    "OffsetFetchRequestGroup",
    "group_id" / GroupId,
    since(9, default(None, "member_id" / nullable(String))),
    since(9, default(-1, "member_epoch" / Int32)),
    "topics" / nullable(array(OffsetFetchRequestTopics)),
)

OffsetFetchRequest = request(
    9,
    versions("0-10", flexible="6+"),
    until(7, "group_id" / GroupId),
    until(7, "topics" / nullable(array(OffsetFetchRequestTopic), since=2)),
    since(8, "groups" / array(OffsetFetchRequestGroup)),
    since(7, "require_stable" / Bool),
)

OffsetFetchResponsePartition = struct(
    "OffsetFetchResponsePartition",
    "partition_index" / Int32,
    "committed_offset" / Int64,
    since(5, default(-1, "committed_leader_epoch" / Int32)),
    "metadata" / nullable(String),
    "error_code" / ErrorCode,
)

OffsetFetchResponseTopic = struct(
    "OffsetFetchResponseTopic",
    "name" / TopicName,
    "partitions" / array(OffsetFetchResponsePartition),
)

OffsetFetchResponsePartitions = struct(
    "OffsetFetchResponsePartitions",
    "partition_index" / Int32,
    "committed_offset" / Int64,
    default(-1, "committed_leader_epoch" / Int32),
    "metadata" / nullable(String),
    "error_code" / ErrorCode,
)

OffsetFetchResponseTopics = struct(
    "OffsetFetchResponseTopics",
    until(9, "name" / TopicName),
    since(10, "topic_id" / Uuid),
    "partitions" / array(OffsetFetchResponsePartitions),
)

OffsetFetchResponseGroup = struct(
    "OffsetFetchResponseGroup",
    "group_id" / GroupId,
    "topics" / array(OffsetFetchResponseTopics),
    "error_code" / ErrorCode,
)

OffsetFetchResponse = response(
    9,
    versions("0-10", flexible="6+"),
    since(3, "throttle_time_ms" / Int32),
    until(7, "topics" / array(OffsetFetchResponseTopic)),
    since(2, until(7, "error_code" / ErrorCode)),
    since(8, "groups" / array(OffsetFetchResponseGroup)),
)
