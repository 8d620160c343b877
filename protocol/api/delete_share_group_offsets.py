"""DeleteShareGroupOffsets: forgets topics of a share group (KIP-932)."""

from protocol.grammar import (
    ErrorCode,
    GroupId,
    Int32,
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

DeleteShareGroupOffsetsRequestTopic = struct(
    "DeleteShareGroupOffsetsRequestTopic",
    "topic_name" / TopicName,
)

DeleteShareGroupOffsetsRequest = request(
    92,
    versions("0", flexible="0+"),
    "group_id" / GroupId,
    "topics" / array(DeleteShareGroupOffsetsRequestTopic),
)

DeleteShareGroupOffsetsResponseTopic = struct(
    "DeleteShareGroupOffsetsResponseTopic",
    "topic_name" / TopicName,
    "topic_id" / Uuid,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
)

DeleteShareGroupOffsetsResponse = response(
    92,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "responses" / array(DeleteShareGroupOffsetsResponseTopic),
)
