"""DeleteRecords: moves the log start offset forward (KIP-107)."""

from protocol.grammar import ErrorCode, Int32, Int64, TopicName, array, request, response, struct, versions

DeleteRecordsPartition = struct(
    "DeleteRecordsPartition",
    "partition_index" / Int32,
    "offset" / Int64,  # delete all before it; -1 for the high watermark
)

DeleteRecordsTopic = struct(
    "DeleteRecordsTopic",
    "name" / TopicName,
    "partitions" / array(DeleteRecordsPartition),
)

DeleteRecordsRequest = request(
    21,
    versions("0-2", flexible="2+"),
    "topics" / array(DeleteRecordsTopic),
    "timeout_ms" / Int32,
)

DeleteRecordsPartitionResult = struct(
    "DeleteRecordsPartitionResult",
    "partition_index" / Int32,
    "low_watermark" / Int64,  # the first offset that is left
    "error_code" / ErrorCode,
)

DeleteRecordsTopicResult = struct(
    "DeleteRecordsTopicResult",
    "name" / TopicName,
    "partitions" / array(DeleteRecordsPartitionResult),
)

DeleteRecordsResponse = response(
    21,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    "topics" / array(DeleteRecordsTopicResult),
)
