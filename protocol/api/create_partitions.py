"""CreatePartitions: adds partitions to topics (KIP-195)."""

from protocol.grammar import (
    Bool,
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

CreatePartitionsAssignment = struct(
    "CreatePartitionsAssignment",
    "broker_ids" / array(BrokerId),  # the replicas; the first is the preferred leader
)

CreatePartitionsTopic = struct(
    "CreatePartitionsTopic",
    "name" / TopicName,
    "count" / Int32,  # of partitions, in the end
    # one for each new partition, or null to let the broker choose
    "assignments" / nullable(array(CreatePartitionsAssignment)),
)

CreatePartitionsRequest = request(
    37,
    versions("0-3", flexible="2+"),
    "topics" / array(CreatePartitionsTopic),
    "timeout_ms" / Int32,
    "validate_only" / Bool,  # check everything, change nothing
)

CreatePartitionsTopicResult = struct(
    "CreatePartitionsTopicResult",
    "name" / TopicName,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
)

CreatePartitionsResponse = response(
    37,
    versions("0-3", flexible="2+"),
    "throttle_time_ms" / Int32,
    "results" / array(CreatePartitionsTopicResult),
)
