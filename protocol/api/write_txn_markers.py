"""WriteTxnMarkers: a transaction coordinator has commit and abort markers written by the leaders (KIP-98)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int8,
    Int16,
    Int32,
    ProducerId,
    TopicName,
    array,
    request,
    response,
    since,
    struct,
    versions,
)

WritableTxnMarkerTopic = struct(
    "WritableTxnMarkerTopic",
    "name" / TopicName,
    "partition_indexes" / array(Int32),
)

WritableTxnMarker = struct(
    "WritableTxnMarker",
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    "transaction_result" / Bool,  # true commits, false aborts
    "topics" / array(WritableTxnMarkerTopic),
    "coordinator_epoch" / Int32,
    since(2, "transaction_version" / Int8),  # 2 checks the epoch strictly (KIP-1228)
)

WriteTxnMarkersRequest = request(
    27,
    versions("0-2", flexible="1+"),
    "markers" / array(WritableTxnMarker),
)

WritableTxnMarkerPartitionResult = struct(
    "WritableTxnMarkerPartitionResult",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

WritableTxnMarkerTopicResult = struct(
    "WritableTxnMarkerTopicResult",
    "name" / TopicName,
    "partitions" / array(WritableTxnMarkerPartitionResult),
)

WritableTxnMarkerResult = struct(
    "WritableTxnMarkerResult",
    "producer_id" / ProducerId,
    "topics" / array(WritableTxnMarkerTopicResult),
)

WriteTxnMarkersResponse = response(
    27,
    versions("0-2", flexible="1+"),
    "markers" / array(WritableTxnMarkerResult),
)
