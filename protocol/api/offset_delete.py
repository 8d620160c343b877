"""OffsetDelete: forgets offsets of topics the group no longer subscribes to (KIP-496)."""

from protocol.grammar import ErrorCode, GroupId, Int32, TopicName, array, request, response, struct, versions

OffsetDeleteRequestPartition = struct(
    "OffsetDeleteRequestPartition",
    "partition_index" / Int32,
)

OffsetDeleteRequestTopic = struct(
    "OffsetDeleteRequestTopic",
    "name" / TopicName,
    "partitions" / array(OffsetDeleteRequestPartition),
)

OffsetDeleteRequest = request(
    47,
    versions("0"),
    "group_id" / GroupId,
    "topics" / array(OffsetDeleteRequestTopic),
)

OffsetDeleteResponsePartition = struct(
    "OffsetDeleteResponsePartition",
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

OffsetDeleteResponseTopic = struct(
    "OffsetDeleteResponseTopic",
    "name" / TopicName,
    "partitions" / array(OffsetDeleteResponsePartition),
)

OffsetDeleteResponse = response(
    47,
    versions("0"),
    "error_code" / ErrorCode,
    "throttle_time_ms" / Int32,
    "topics" / array(OffsetDeleteResponseTopic),
)
