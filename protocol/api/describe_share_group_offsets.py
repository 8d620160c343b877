"""DescribeShareGroupOffsets: where share groups start (KIP-932)."""

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
    versions,
)

DescribeShareGroupOffsetsRequestTopic = struct(
    "DescribeShareGroupOffsetsRequestTopic",
    "topic_name" / TopicName,
    "partitions" / array(Int32),
)

DescribeShareGroupOffsetsRequestGroup = struct(
    "DescribeShareGroupOffsetsRequestGroup",
    "group_id" / GroupId,
    "topics" / nullable(array(DescribeShareGroupOffsetsRequestTopic)),  # null for all
)

DescribeShareGroupOffsetsRequest = request(
    90,
    versions("0-1", flexible="0+"),
    "groups" / array(DescribeShareGroupOffsetsRequestGroup),
)

DescribeShareGroupOffsetsResponsePartition = struct(
    "DescribeShareGroupOffsetsResponsePartition",
    "partition_index" / Int32,
    "start_offset" / Int64,  # -1 if there is none
    "leader_epoch" / Int32,
    since(1, default(-1, "lag" / Int64)),  # -1 if unknown
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
)

DescribeShareGroupOffsetsResponseTopic = struct(
    "DescribeShareGroupOffsetsResponseTopic",
    "topic_name" / TopicName,
    "topic_id" / Uuid,
    "partitions" / array(DescribeShareGroupOffsetsResponsePartition),
)

DescribeShareGroupOffsetsResponseGroup = struct(
    "DescribeShareGroupOffsetsResponseGroup",
    "group_id" / GroupId,
    "topics" / array(DescribeShareGroupOffsetsResponseTopic),
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
)

DescribeShareGroupOffsetsResponse = response(
    90,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribeShareGroupOffsetsResponseGroup),
)
