"""OffsetFetch: how far a group has consumed; since v8 many groups at once (KIP-709)."""

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
    since(9, default(None, "member_id" / nullable(String))),  # of a group with member epochs (KIP-848)
    since(9, default(-1, "member_epoch" / Int32)),  # -1 where it does not matter
    "topics" / nullable(array(OffsetFetchRequestTopics)),  # null for all
)

OffsetFetchRequest = request(
    9,
    versions("0-10", flexible="6+"),
    until(7, "group_id" / GroupId),
    until(7, "topics" / nullable(array(OffsetFetchRequestTopic), since=2)),  # null for all
    since(8, "groups" / array(OffsetFetchRequestGroup)),
    since(7, "require_stable" / Bool),  # wait out offsets of open transactions (KIP-447)
)

OffsetFetchResponsePartition = struct(
    "OffsetFetchResponsePartition",
    "partition_index" / Int32,
    "committed_offset" / Int64,  # -1 for none
    since(5, default(-1, "committed_leader_epoch" / Int32)),  # of the last consumed record, -1 if unknown
    "metadata" / nullable(String),  # free text of the client
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
    "committed_offset" / Int64,  # -1 for none
    default(-1, "committed_leader_epoch" / Int32),  # of the last consumed record, -1 if unknown
    "metadata" / nullable(String),  # free text of the client
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
