"""ListOffsets: the offset at a timestamp, or at either end of a partition."""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    Int64,
    TopicName,
    array,
    default,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

ListOffsetsPartition = struct(
    "ListOffsetsPartition",
    "partition_index" / Int32,
    # what the client knows, -1 for nothing; a mismatch is refused (KIP-320)
    since(4, default(-1, "current_leader_epoch" / Int32)),
    # -1 latest, -2 earliest, -3 max timestamp, -4 earliest local, -5 latest tiered, -6 earliest pending upload
    "timestamp" / Int64,
    until(0, default(1, "max_num_offsets" / Int32)),
)

ListOffsetsTopic = struct(
    "ListOffsetsTopic",
    "name" / TopicName,
    "partitions" / array(ListOffsetsPartition),
)

ListOffsetsRequest = request(
    2,
    versions("0-11", flexible="6+"),
    "replica_id" / BrokerId,  # -1 for a consumer, a broker's id for a follower
    since(2, "isolation_level" / Int8),  # 0 read_uncommitted, 1 read_committed
    "topics" / array(ListOffsetsTopic),
    since(10, "timeout_ms" / Int32),  # for an answer from tiered storage
)

ListOffsetsPartitionResponse = struct(
    "ListOffsetsPartitionResponse",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    until(0, "old_style_offsets" / array(Int64)),  # latest first
    since(1, default(-1, "timestamp" / Int64)),  # of the record found, -1 if none
    since(1, default(-1, "offset" / Int64)),
    since(4, default(-1, "leader_epoch" / Int32)),
)

ListOffsetsTopicResponse = struct(
    "ListOffsetsTopicResponse",
    "name" / TopicName,
    "partitions" / array(ListOffsetsPartitionResponse),
)

ListOffsetsResponse = response(
    2,
    versions("0-11", flexible="6+"),
    since(2, "throttle_time_ms" / Int32),
    "topics" / array(ListOffsetsTopicResponse),
)
