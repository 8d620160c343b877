"""StreamsGroupDescribe: shows groups of the Streams protocol (KIP-1071)."""

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
    "replication_factor" / Int16,  # -1 for the broker's default, or where assignments are given
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
    "warmup_tasks" / array(TaskIds),  # active tasks to be, catching up
)

Member = struct(
    "Member",
    "member_id" / String,
    "member_epoch" / Int32,  # what the member last acknowledged
    default(None, "instance_id" / nullable(String)),  # set for static members
    default(None, "rack_id" / nullable(String)),
    "client_id" / String,
    "client_host" / String,
    "topology_epoch" / Int32,
    "process_id" / String,  # of the Streams instance; members of one process share local state
    default(None, "user_endpoint" / nullable(Endpoint)),  # where interactive queries reach the process
    "client_tags" / array(KeyValue),  # for rack-aware placement of standby tasks
    "task_offsets" / array(TaskOffset),  # how far each warm-up and standby task has caught up
    "task_end_offsets" / array(TaskOffset),  # where the changelogs of these tasks end
    "assignment" / Assignment,  # what it owns now
    "target_assignment" / Assignment,  # what it is to own
    "is_classic" / Bool,  # joined with the classic protocol
)

DescribedGroup = struct(
    "DescribedGroup",
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "group_id" / GroupId,
    "group_state" / String,
    "group_epoch" / Int32,  # changes whenever members or their subscriptions do
    "assignment_epoch" / Int32,  # of the target assignment
    default(None, "topology" / nullable(Topology)),
    "members" / array(Member),
    # a bit for each ACL operation; INT32_MIN when not asked for
    default(-2_147_483_648, "authorized_operations" / Int32),
)

StreamsGroupDescribeResponse = response(
    89,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribedGroup),
)
