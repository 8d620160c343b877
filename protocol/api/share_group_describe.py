"""ShareGroupDescribe: shows share groups (KIP-932).

Declared from v1, the first stable version; the v0 of Apache Kafka 3.9 was early access and never enabled by default.
"""

from protocol.grammar import (
    Bool,
    ErrorCode,
    GroupId,
    Int32,
    String,
    TopicName,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    struct,
    versions,
)

ShareGroupDescribeRequest = request(
    77,
    versions("1", flexible="0+"),
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
    default(None, "rack_id" / nullable(String)),
    "member_epoch" / Int32,  # what the member last acknowledged
    "client_id" / String,
    "client_host" / String,
    "subscribed_topic_names" / array(TopicName),
    "assignment" / Assignment,  # what it owns now
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

ShareGroupDescribeResponse = response(
    77,
    versions("1", flexible="0+"),
    "throttle_time_ms" / Int32,
    "groups" / array(DescribedGroup),
)
