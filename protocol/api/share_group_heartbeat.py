"""ShareGroupHeartbeat: joins, keeps alive and leaves a share group (KIP-932).

Declared from v1, the first stable version; the v0 of Apache Kafka 3.9 was early access and never enabled by default.
"""

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
    "member_epoch" / Int32,  # 0 joins, -1 leaves; else the last one received
    default(None, "rack_id" / nullable(String)),  # null if unchanged
    default(None, "subscribed_topic_names" / nullable(array(TopicName))),  # null if unchanged
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
    "member_epoch" / Int32,  # what the member last acknowledged
    "heartbeat_interval_ms" / Int32,  # how often the member shall send the next ones
    default(None, "assignment" / nullable(Assignment)),  # null if unchanged
)
