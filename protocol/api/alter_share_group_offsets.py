"""AlterShareGroupOffsets: sets where a share group starts (KIP-932)."""

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
    struct,
    versions,
)

AlterShareGroupOffsetsRequestPartition = struct(
    "AlterShareGroupOffsetsRequestPartition",
    "partition_index" / Int32,
    "start_offset" / Int64,
)

AlterShareGroupOffsetsRequestTopic = struct(
    "AlterShareGroupOffsetsRequestTopic",
    "topic_name" / TopicName,
    "partitions" / array(AlterShareGroupOffsetsRequestPartition),
)

AlterShareGroupOffsetsRequest = request(
    91,
    versions("0", flexible="0+"),
    "group_id" / GroupId,
    "topics" / array(AlterShareGroupOffsetsRequestTopic),
)

AlterShareGroupOffsetsResponsePartition = struct(
    "AlterShareGroupOffsetsResponsePartition",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
)

AlterShareGroupOffsetsResponseTopic = struct(
    "AlterShareGroupOffsetsResponseTopic",
    "topic_name" / TopicName,
    "topic_id" / Uuid,
    "partitions" / array(AlterShareGroupOffsetsResponsePartition),
)

AlterShareGroupOffsetsResponse = response(
    91,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "responses" / array(AlterShareGroupOffsetsResponseTopic),
)
