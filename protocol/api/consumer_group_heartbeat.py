"""ConsumerGroupHeartbeat: joins, keeps alive, reconciles and leaves, all in one (KIP-848)."""

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
    "member_id" / String,  # made by the member, since v1
    "member_epoch" / Int32,  # 0 joins, -1 leaves, -2 leaves as a static member; else the last one received
    default(None, "instance_id" / nullable(String)),  # null if unchanged or not static
    default(None, "rack_id" / nullable(String)),  # null if unchanged
    default(-1, "rebalance_timeout_ms" / Int32),  # -1 if unchanged; how long it may take to give partitions up
    default(None, "subscribed_topic_names" / nullable(array(TopicName))),  # null if unchanged
    since(1, default(None, "subscribed_topic_regex" / nullable(String))),  # null if unchanged; RE2 syntax
    default(None, "server_assignor" / nullable(String)),  # null for the broker's choice
    default(None, "topic_partitions" / nullable(array(TopicPartitions))),  # what the member owns, null if unchanged
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
    "member_epoch" / Int32,  # what the member last acknowledged
    "heartbeat_interval_ms" / Int32,  # how often the member shall send the next ones
    default(None, "assignment" / nullable(Assignment)),  # null if unchanged
)
