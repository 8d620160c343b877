"""StreamsGroupHeartbeat."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    GroupId,
    Int8,
    Int16,
    Int32,
    Int64,
    String,
    TopicName,
    UInt16,
    array,
    default,
    nullable,
    request,
    response,
    struct,
    versions,
)

KeyValue = struct(
    "KeyValue",
    "key" / String,
    "value" / String,
)

TopicInfo = struct(
    "TopicInfo",
    "name" / TopicName,
    "partitions" / Int32,
    "replication_factor" / Int16,
    "topic_configs" / array(KeyValue),
)

CopartitionGroup = struct(
    "CopartitionGroup",
    "source_topics" / array(Int16),
    "source_topic_regex" / array(Int16),
    "repartition_source_topics" / array(Int16),
)

Subtopology = struct(
    "Subtopology",
    "subtopology_id" / String,
    "source_topics" / array(TopicName),
    "source_topic_regex" / array(String),
    "state_changelog_topics" / array(TopicInfo),
    "repartition_sink_topics" / array(TopicName),
    "repartition_source_topics" / array(TopicInfo),
    "copartition_groups" / array(CopartitionGroup),
)

Topology = struct(
    "Topology",
    "epoch" / Int32,
    "subtopologies" / array(Subtopology),
)

TaskIds = struct(
    "TaskIds",
    "subtopology_id" / String,
    "partitions" / array(Int32),
)

Endpoint = struct(
    "Endpoint",
    "host" / String,
    "port" / UInt16,
)

TaskOffset = struct(
    "TaskOffset",
    "subtopology_id" / String,
    "partition" / Int32,
    "offset" / Int64,
)

StreamsGroupHeartbeatRequest = request(
    88,
    versions("0", flexible="0+"),
    "group_id" / GroupId,
    "member_id" / String,
    "member_epoch" / Int32,
    "endpoint_information_epoch" / Int32,
    default(None, "instance_id" / nullable(String)),
    default(None, "rack_id" / nullable(String)),
    default(-1, "rebalance_timeout_ms" / Int32),
    default(None, "topology" / nullable(Topology)),
    default(None, "active_tasks" / nullable(array(TaskIds))),
    default(None, "standby_tasks" / nullable(array(TaskIds))),
    default(None, "warmup_tasks" / nullable(array(TaskIds))),
    default(None, "process_id" / nullable(String)),
    default(None, "user_endpoint" / nullable(Endpoint)),
    default(None, "client_tags" / nullable(array(KeyValue))),
    default(None, "task_offsets" / nullable(array(TaskOffset))),
    default(None, "task_end_offsets" / nullable(array(TaskOffset))),
    "shutdown_application" / Bool,
)

Status = struct(
    "Status",
    "status_code" / Int8,
    "status_detail" / String,
)

TopicPartition = struct(
    "TopicPartition",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

EndpointToPartitions = struct(
    "EndpointToPartitions",
    "user_endpoint" / Endpoint,
    "active_partitions" / array(TopicPartition),
    "standby_partitions" / array(TopicPartition),
)

StreamsGroupHeartbeatResponse = response(
    88,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "member_id" / String,
    "member_epoch" / Int32,
    "heartbeat_interval_ms" / Int32,
    "acceptable_recovery_lag" / Int32,
    "task_offset_interval_ms" / Int32,
    "status" / nullable(array(Status)),
    default(None, "active_tasks" / nullable(array(TaskIds))),
    default(None, "standby_tasks" / nullable(array(TaskIds))),
    default(None, "warmup_tasks" / nullable(array(TaskIds))),
    "endpoint_information_epoch" / Int32,
    default(None, "partitions_by_user_endpoint" / nullable(array(EndpointToPartitions))),
)
