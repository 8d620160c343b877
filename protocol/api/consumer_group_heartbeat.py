"""ConsumerGroupHeartbeat."""

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
    since,
    struct,
    versions,
)

TopicPartitions = struct(
    "TopicPartitions",
    "topic_id" / Uuid,
    "partitions" / array(Int32),
)

ConsumerGroupHeartbeatRequest = request(
    68,
    versions("0-1", flexible="0+"),
    "group_id" / GroupId,
    "member_id" / String,
    "member_epoch" / Int32,
    default(None, "instance_id" / nullable(String)),
    default(None, "rack_id" / nullable(String)),
    default(-1, "rebalance_timeout_ms" / Int32),
    default(None, "subscribed_topic_names" / nullable(array(TopicName))),
    since(1, default(None, "subscribed_topic_regex" / nullable(String))),
    default(None, "server_assignor" / nullable(String)),
    default(None, "topic_partitions" / nullable(array(TopicPartitions))),
)

Assignment = struct(
    "Assignment",
    "topic_partitions" / array(TopicPartitions),
)

ConsumerGroupHeartbeatResponse = response(
    68,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    default(None, "member_id" / nullable(String)),
    "member_epoch" / Int32,
    "heartbeat_interval_ms" / Int32,
    default(None, "assignment" / nullable(Assignment)),
)
