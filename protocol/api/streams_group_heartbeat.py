"""StreamsGroupHeartbeat: joins, keeps alive, reconciles tasks and leaves (KIP-1071)."""

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
    "partitions" / Int32,  # 0 to take the number of the source topics
    "replication_factor" / Int16,  # -1 for the broker's default, or where assignments are given
    "topic_configs" / array(KeyValue),
)

CopartitionGroup = struct(
    "CopartitionGroup",
    "source_topics" / array(Int16),  # indexes into the subtopology's list
    "source_topic_regex" / array(Int16),  # indexes into the subtopology's list
    "repartition_source_topics" / array(Int16),  # indexes into the subtopology's list
)

Subtopology = struct(
    "Subtopology",
    "subtopology_id" / String,
    "source_topics" / array(TopicName),
    "source_topic_regex" / array(String),  # RE2 syntax
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
    "member_epoch" / Int32,  # 0 joins, -1 leaves, -2 leaves as a static member; else the last one received
    "endpoint_information_epoch" / Int32,  # of the member's view of the others' endpoints
    default(None, "instance_id" / nullable(String)),  # null if unchanged or not static
    default(None, "rack_id" / nullable(String)),  # null if unchanged
    default(-1, "rebalance_timeout_ms" / Int32),  # -1 if unchanged
    default(None, "topology" / nullable(Topology)),  # null unless it is the first one or has changed
    default(None, "active_tasks" / nullable(array(TaskIds))),  # null if unchanged
    default(None, "standby_tasks" / nullable(array(TaskIds))),  # null if unchanged
    default(None, "warmup_tasks" / nullable(array(TaskIds))),  # null if unchanged
    default(None, "process_id" / nullable(String)),  # null if unchanged
    default(None, "user_endpoint" / nullable(Endpoint)),  # null if unchanged
    default(None, "client_tags" / nullable(array(KeyValue))),  # null if unchanged
    default(None, "task_offsets" / nullable(array(TaskOffset))),  # null if unchanged
    default(None, "task_end_offsets" / nullable(array(TaskOffset))),  # null if unchanged
    "shutdown_application" / Bool,  # asks all members to stop
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
    "user_endpoint" / Endpoint,  # where interactive queries reach the process
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
    "member_epoch" / Int32,  # what the member last acknowledged
    "heartbeat_interval_ms" / Int32,  # how often the member shall send the next ones
    "acceptable_recovery_lag" / Int32,  # up to which a warm-up task counts as caught up
    "task_offset_interval_ms" / Int32,
    "status" / nullable(array(Status)),  # null if there is nothing to say
    default(None, "active_tasks" / nullable(array(TaskIds))),  # null if unchanged
    default(None, "standby_tasks" / nullable(array(TaskIds))),  # null if unchanged
    default(None, "warmup_tasks" / nullable(array(TaskIds))),  # null if unchanged
    "endpoint_information_epoch" / Int32,  # of the member's view of the others' endpoints
    default(None, "partitions_by_user_endpoint" / nullable(array(EndpointToPartitions))),
)
