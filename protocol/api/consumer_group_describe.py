"""ConsumerGroupDescribe: shows groups of the consumer protocol (KIP-848)."""

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
    default(None, "instance_id" / nullable(String)),  # set for static members
    default(None, "rack_id" / nullable(String)),
    "member_epoch" / Int32,  # what the member last acknowledged
    "client_id" / String,
    "client_host" / String,
    "subscribed_topic_names" / array(TopicName),
    default(None, "subscribed_topic_regex" / nullable(String)),  # RE2 syntax
    "assignment" / Assignment,  # what it owns now
    "target_assignment" / Assignment,  # what it is to own
    since(1, default(-1, "member_type" / Int8)),  # -1 unknown, 0 classic, 1 consumer
)

DescribedGroup = struct(
    "DescribedGroup",
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    "group_id" / GroupId,
    "group_state" / String,
    "group_epoch" / Int32,  # changes whenever members or their subscriptions do
    "assignment_epoch" / Int32,  # of the target assignment
    "assignor_name" / String,
    "members" / array(Member),
    # a bit for each ACL operation; INT32_MIN when not asked for
    default(-2_147_483_648, "authorized_operations" / Int32),
)

ConsumerGroupDescribeResponse = response(
    69,
    versions("0-1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribedGroup),
)
