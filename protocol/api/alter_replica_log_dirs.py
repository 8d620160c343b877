"""AlterReplicaLogDirs: moves replicas between the log directories of one broker (KIP-113)."""

from protocol.grammar import ErrorCode, Int32, String, TopicName, array, request, response, struct, versions

AlterReplicaLogDirTopic = struct(
    "AlterReplicaLogDirTopic",
    "name" / TopicName,
    "partitions" / array(Int32),
)

AlterReplicaLogDir = struct(
    "AlterReplicaLogDir",
    "path" / String,  # absolute, of a directory of log.dirs
    "topics" / array(AlterReplicaLogDirTopic),
)

AlterReplicaLogDirsRequest = request(
    34,
    versions("0-2", flexible="2+"),
    "dirs" / array(AlterReplicaLogDir),
)

AlterReplicaLogDirPartitionResult = struct(
    "AlterReplicaLogDirPartitionResult",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

AlterReplicaLogDirTopicResult = struct(
    "AlterReplicaLogDirTopicResult",
    "topic_name" / TopicName,
    "partitions" / array(AlterReplicaLogDirPartitionResult),
)

AlterReplicaLogDirsResponse = response(
    34,
    versions("0-2", flexible="2+"),
    "throttle_time_ms" / Int32,
    "results" / array(AlterReplicaLogDirTopicResult),
)
