"""DescribeAcls."""

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
    "resource_type_filter" / Int8,
    "resource_name_filter" / nullable(String),
    since(1, default(3, "pattern_type_filter" / Int8)),
    "principal_filter" / nullable(String),
    "host_filter" / nullable(String),
    "operation" / Int8,
    "permission_type" / Int8,
)

AclDescription = struct(
    "AclDescription",
    "principal" / String,
    "host" / String,
    "operation" / Int8,
    "permission_type" / Int8,
)

DescribeAclsResource = struct(
    "DescribeAclsResource",
    "resource_type" / Int8,
    "resource_name" / String,
    since(1, default(3, "pattern_type" / Int8)),
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
