"""ShareGroupHeartbeat."""

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

ShareGroupHeartbeatRequest = request(
    76,
    versions("1", flexible="0+"),
    "group_id" / GroupId,
    "member_id" / String,
    "member_epoch" / Int32,
    default(None, "rack_id" / nullable(String)),
    default(None, "subscribed_topic_names" / nullable(array(TopicName))),
)

TopicPartitions = struct(
    "TopicPartitions",
    "topic_id" / Uuid,
    "partitions" / array(Int32),
)

Assignment = struct(
    "Assignment",
    "topic_partitions" / array(TopicPartitions),
)

ShareGroupHeartbeatResponse = response(
    76,
    versions("1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    default(None, "member_id" / nullable(String)),
    "member_epoch" / Int32,
    "heartbeat_interval_ms" / Int32,
    default(None, "assignment" / nullable(Assignment)),
)
