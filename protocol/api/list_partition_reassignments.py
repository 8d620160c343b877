"""ListPartitionReassignments: those that are under way (KIP-455)."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int32,
    String,
    TopicName,
    array,
    default,
    nullable,
    request,
    response,
    struct,
    versions,
)

ListPartitionReassignmentsTopics = struct(
    "ListPartitionReassignmentsTopics",
    "name" / TopicName,
    "partition_indexes" / array(Int32),
)

ListPartitionReassignmentsRequest = request(
    46,
    versions("0", flexible="0+"),
    default(60000, "timeout_ms" / Int32),
    default(None, "topics" / nullable(array(ListPartitionReassignmentsTopics))),  # null for all
)

OngoingPartitionReassignment = struct(
    "OngoingPartitionReassignment",
    "partition_index" / Int32,
    "replicas" / array(BrokerId),  # all of them, the ones on their way included
    "adding_replicas" / array(BrokerId),  # on their way in, during a reassignment
    "removing_replicas" / array(BrokerId),  # on their way out, during a reassignment
)

OngoingTopicReassignment = struct(
    "OngoingTopicReassignment",
    "name" / TopicName,
    "partitions" / array(OngoingPartitionReassignment),
)

ListPartitionReassignmentsResponse = response(
    46,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "topics" / array(OngoingTopicReassignment),
)
