"""ElectLeaders: moves leadership to the preferred replicas, or to any live one (KIP-183, KIP-460)."""

from protocol.grammar import (
    ErrorCode,
    Int8,
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

TopicPartitions = struct(
    "TopicPartitions",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

ElectLeadersRequest = request(
    43,
    versions("0-2", flexible="2+"),
    since(1, "election_type" / Int8),  # 0 preferred, 1 unclean
    "topic_partitions" / nullable(array(TopicPartitions)),  # null for all
    default(60000, "timeout_ms" / Int32),
)

PartitionResult = struct(
    "PartitionResult",
    "partition_id" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

ReplicaElectionResult = struct(
    "ReplicaElectionResult",
    "topic" / TopicName,
    "partition_result" / array(PartitionResult),
)

ElectLeadersResponse = response(
    43,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    since(1, "error_code" / ErrorCode),
    "replica_election_results" / array(ReplicaElectionResult),
)
