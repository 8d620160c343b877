"""DescribeAcls: by filter (KIP-140)."""

from protocol.grammar import (
    ErrorCode,
    Int8,
    Int32,
    String,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

DescribeAclsRequest = request(
    29,
    versions("0-3", flexible="2+"),
    "resource_type_filter" / Int8,  # a ResourceType; 1 matches any
    "resource_name_filter" / nullable(String),  # null matches any
    since(1, default(3, "pattern_type_filter" / Int8)),  # a PatternType; 1 any, 2 whatever would apply to the name
    "principal_filter" / nullable(String),  # null matches any
    "host_filter" / nullable(String),  # null matches any
    "operation" / Int8,  # an AclOperation
    "permission_type" / Int8,  # 2 deny, 3 allow
)

AclDescription = struct(
    "AclDescription",
    "principal" / String,
    "host" / String,
    "operation" / Int8,  # an AclOperation
    "permission_type" / Int8,  # 2 deny, 3 allow
)

DescribeAclsResource = struct(
    "DescribeAclsResource",
    "resource_type" / Int8,  # 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token, 7 user
    "resource_name" / String,
    since(1, default(3, "pattern_type" / Int8)),  # 3 literal, 4 prefixed
    "acls" / array(AclDescription),
)

DescribeAclsResponse = response(
    29,
    versions("0-3", flexible="2+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "resources" / array(DescribeAclsResource),
)
