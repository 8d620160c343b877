"""DescribeProducers: who writes to partitions, and with which open transactions (KIP-664)."""

from protocol.grammar import (
    ErrorCode,
    Int32,
    Int64,
    ProducerId,
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

TopicRequest = struct(
    "TopicRequest",
    "name" / TopicName,
    "partition_indexes" / array(Int32),
)

DescribeProducersRequest = request(
    61,
    versions("0", flexible="0+"),
    "topics" / array(TopicRequest),
)

ProducerState = struct(
    "ProducerState",
    "producer_id" / ProducerId,
    "producer_epoch" / Int32,
    default(-1, "last_sequence" / Int32),
    default(-1, "last_timestamp" / Int64),  # of its last write, -1 if none
    "coordinator_epoch" / Int32,
    default(-1, "current_txn_start_offset" / Int64),  # -1 if no transaction is open
)

PartitionResponse = struct(
    "PartitionResponse",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "active_producers" / array(ProducerState),
)

TopicResponse = struct(
    "TopicResponse",
    "name" / TopicName,
    "partitions" / array(PartitionResponse),
)

DescribeProducersResponse = response(
    61,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "topics" / array(TopicResponse),
)
