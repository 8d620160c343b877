"""StreamsGroupDescribe."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    GroupId,
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

StreamsGroupDescribeRequest = request(
    89,
    versions("0", flexible="0+"),
    "group_ids" / array(GroupId),
    "include_authorized_operations" / Bool,
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

Subtopology = struct(
    "Subtopology",
    "subtopology_id" / String,
    "source_topics" / array(TopicName),
    "repartition_sink_topics" / array(TopicName),
    "state_changelog_topics" / array(TopicInfo),
    "repartition_source_topics" / array(TopicInfo),
)

Topology = struct(
    "Topology",
    "epoch" / Int32,
    default(None, "subtopologies" / nullable(array(Subtopology))),
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

TaskIds = struct(
    "TaskIds",
    "subtopology_id" / String,
    "partitions" / array(Int32),
)

Assignment = struct(
    "Assignment",
    "active_tasks" / array(TaskIds),
    "standby_tasks" / array(TaskIds),
    "warmup_tasks" / array(TaskIds),
)

Member = struct(
    "Member",
    "member_id" / String,
    "member_epoch" / Int32,
    default(None, "instance_id" / nullable(String)),
    default(None, "rack_id" / nullable(String)),
    "client_id" / String,
    "client_host" / String,
    "topology_epoch" / Int32,
    "process_id" / String,
    default(None, "user_endpoint" / nullable(Endpoint)),
    "client_tags" / array(KeyValue),
    "task_offsets" / array(TaskOffset),
    "task_end_offsets" / array(TaskOffset),
    "assignment" / Assignment,
    "target_assignment" / Assignment,
    "is_classic" / Bool,
)

DescribedGroup = struct(
    "DescribedGroup",
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "group_id" / GroupId,
    "group_state" / String,
    "group_epoch" / Int32,
    "assignment_epoch" / Int32,
    default(None, "topology" / nullable(Topology)),
    "members" / array(Member),
    default(-2_147_483_648, "authorized_operations" / Int32),
)

StreamsGroupDescribeResponse = response(
    89,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribedGroup),
)
