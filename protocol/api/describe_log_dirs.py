"""DescribeLogDirs."""

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
    "topics" / nullable(array(DescribableLogDirTopic)),
)

DescribeLogDirsPartition = struct(
    "DescribeLogDirsPartition",
    "partition_index" / Int32,
    "partition_size" / Int64,
    "offset_lag" / Int64,
    "is_future_key" / Bool,
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
    since(4, default(-1, "total_bytes" / Int64)),
    since(4, default(-1, "usable_bytes" / Int64)),
    since(5, "is_cordoned" / Bool),
)

DescribeLogDirsResponse = response(
    35,
    versions("0-5", flexible="2+"),
    "throttle_time_ms" / Int32,
    since(3, "error_code" / ErrorCode),
    "results" / array(DescribeLogDirsResult),
)
