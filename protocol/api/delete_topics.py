"""DeleteTopics: by name, or since v6 by id (KIP-516)."""

from protocol.grammar import (
    ErrorCode,
    Int32,
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

DeleteTopicState = struct(
    "DeleteTopicState",
    default(None, "name" / nullable(TopicName)),  # null where the id says which
    "topic_id" / Uuid,
)

DeleteTopicsRequest = request(
    20,
    versions("0-6", flexible="4+"),
    since(6, "topics" / array(DeleteTopicState)),
    until(5, "topic_names" / array(TopicName)),
    "timeout_ms" / Int32,
)

DeletableTopicResult = struct(
    "DeletableTopicResult",
    "name" / nullable(TopicName, since=6),  # null where unknown or not to be revealed
    since(6, "topic_id" / Uuid),
    "error_code" / ErrorCode,
    since(5, default(None, "error_message" / nullable(String))),
)

DeleteTopicsResponse = response(
    20,
    versions("0-6", flexible="4+"),
    since(1, "throttle_time_ms" / Int32),
    "responses" / array(DeletableTopicResult),
)
