"""ConsumerGroupDescribe."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    GroupId,
    Int8,
    Int32,
    String,
    TopicName,
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

ConsumerGroupDescribeRequest = request(
    69,
    versions("0-1", flexible="0+"),
    "group_ids" / array(GroupId),
    "include_authorized_operations" / Bool,
)

TopicPartitions = struct(
    "TopicPartitions",
    "topic_id" / Uuid,
    "topic_name" / TopicName,
    "partitions" / array(Int32),
)

Assignment = struct(
    "Assignment",
    "topic_partitions" / array(TopicPartitions),
)

Member = struct(
    "Member",
    "member_id" / String,
    default(None, "instance_id" / nullable(String)),
    default(None, "rack_id" / nullable(String)),
    "member_epoch" / Int32,
    "client_id" / String,
    "client_host" / String,
    "subscribed_topic_names" / array(TopicName),
    default(None, "subscribed_topic_regex" / nullable(String)),
    "assignment" / Assignment,
    "target_assignment" / Assignment,
    since(1, default(-1, "member_type" / Int8)),
)

DescribedGroup = struct(
    "DescribedGroup",
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "group_id" / GroupId,
    "group_state" / String,
    "group_epoch" / Int32,
    "assignment_epoch" / Int32,
    "assignor_name" / String,
    "members" / array(Member),
    default(-2_147_483_648, "authorized_operations" / Int32),
)

ConsumerGroupDescribeResponse = response(
    69,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribedGroup),
)
