"""DescribeQuorum: the state of the KRaft quorum (KIP-595). kpy has no quorum; tools ask for it."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int32,
    Int64,
    String,
    TopicName,
    UInt16,
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

RequestPartitionData = struct(
    "RequestPartitionData",
    "partition_index" / Int32,
)

RequestTopicData = struct(
    "RequestTopicData",
    "topic_name" / TopicName,
    "partitions" / array(RequestPartitionData),
)

DescribeQuorumRequest = request(
    55,
    versions("0-2", flexible="0+"),
    "topics" / array(RequestTopicData),
)

ReplicaState = struct(
    "ReplicaState",
    "replica_id" / BrokerId,
    since(2, "replica_directory_id" / Uuid),
    "log_end_offset" / Int64,  # -1 if unknown
    since(1, default(-1, "last_fetch_timestamp" / Int64)),  # by the leader's clock, -1 if unknown
    since(1, default(-1, "last_caught_up_timestamp" / Int64)),  # by the leader's clock, -1 if unknown
)

ResponsePartitionData = struct(
    "ResponsePartitionData",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    since(2, "error_message" / nullable(String)),
    "leader_id" / BrokerId,  # -1 for nobody
    "leader_epoch" / Int32,
    "high_watermark" / Int64,
    "current_voters" / array(ReplicaState),
    "observers" / array(ReplicaState),
)

ResponseTopicData = struct(
    "ResponseTopicData",
    "topic_name" / TopicName,
    "partitions" / array(ResponsePartitionData),
)

Listener = struct(
    "Listener",
    "name" / String,  # of the listener
    "host" / String,
    "port" / UInt16,
)

Node = struct(
    "Node",
    "node_id" / BrokerId,
    "listeners" / array(Listener),
)

DescribeQuorumResponse = response(
    55,
    versions("0-2", flexible="0+"),
    "error_code" / ErrorCode,
    since(2, "error_message" / nullable(String)),
    "topics" / array(ResponseTopicData),
    since(2, "nodes" / array(Node)),
)
