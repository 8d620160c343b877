"""DescribeLogDirs: what lies in the log directories of one broker (KIP-113)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int32,
    Int64,
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

DescribableLogDirTopic = struct(
    "DescribableLogDirTopic",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

DescribeLogDirsRequest = request(
    35,
    versions("0-5", flexible="2+"),
    "topics" / nullable(array(DescribableLogDirTopic)),  # null for all
)

DescribeLogDirsPartition = struct(
    "DescribeLogDirsPartition",
    "partition_index" / Int32,
    "partition_size" / Int64,  # in bytes
    "offset_lag" / Int64,  # behind the high watermark, or for a future replica behind the current one
    "is_future_key" / Bool,  # it is being moved here from another directory
)

DescribeLogDirsTopic = struct(
    "DescribeLogDirsTopic",
    "name" / TopicName,
    "partitions" / array(DescribeLogDirsPartition),
)

DescribeLogDirsResult = struct(
    "DescribeLogDirsResult",
    "error_code" / ErrorCode,
    "log_dir" / String,
    "topics" / array(DescribeLogDirsTopic),
    since(4, default(-1, "total_bytes" / Int64)),  # of the volume
    since(4, default(-1, "usable_bytes" / Int64)),  # of the volume
    since(5, "is_cordoned" / Bool),  # takes no new partitions
)

DescribeLogDirsResponse = response(
    35,
    versions("0-5", flexible="2+"),
    "throttle_time_ms" / Int32,
    since(3, "error_code" / ErrorCode),
    "results" / array(DescribeLogDirsResult),
)
