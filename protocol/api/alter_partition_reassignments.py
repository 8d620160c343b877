"""AlterPartitionReassignments: moves partitions to other brokers, or cancels that (KIP-455)."""

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
    since,
    struct,
    versions,
)

ReassignablePartition = struct(
    "ReassignablePartition",
    "partition_index" / Int32,
    default(None, "replicas" / nullable(array(BrokerId))),  # the target, or null to cancel a reassignment
)

ReassignableTopic = struct(
    "ReassignableTopic",
    "name" / TopicName,
    "partitions" / array(ReassignablePartition),
)

AlterPartitionReassignmentsRequest = request(
    45,
    versions("0-1", flexible="0+"),
    default(60000, "timeout_ms" / Int32),
    # whether the number of replicas may differ from now
    since(1, default(True, "allow_replication_factor_change" / Bool)),
    "topics" / array(ReassignableTopic),
)

ReassignablePartitionResponse = struct(
    "ReassignablePartitionResponse",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

ReassignableTopicResponse = struct(
    "ReassignableTopicResponse",
    "name" / TopicName,
    "partitions" / array(ReassignablePartitionResponse),
)

AlterPartitionReassignmentsResponse = response(
    45,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    since(1, default(True, "allow_replication_factor_change" / Bool)),  # as in the request
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "responses" / array(ReassignableTopicResponse),
)
