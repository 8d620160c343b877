"""DeleteAcls."""

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

DeleteAclsFilter = struct(
    "DeleteAclsFilter",
    "resource_type_filter" / Int8,
    "resource_name_filter" / nullable(String),
    since(1, default(3, "pattern_type_filter" / Int8)),
    "principal_filter" / nullable(String),
    "host_filter" / nullable(String),
    "operation" / Int8,
    "permission_type" / Int8,
)

DeleteAclsRequest = request(
    31,
    versions("0-3", flexible="2+"),
    "filters" / array(DeleteAclsFilter),
)

DeleteAclsMatchingAcl = struct(
    "DeleteAclsMatchingAcl",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "resource_type" / Int8,
    "resource_name" / String,
    since(1, default(3, "pattern_type" / Int8)),
    "principal" / String,
    "host" / String,
    "operation" / Int8,
    "permission_type" / Int8,
)

DeleteAclsFilterResult = struct(
    "DeleteAclsFilterResult",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    "matching_acls" / array(DeleteAclsMatchingAcl),
)

DeleteAclsResponse = response(
    31,
    versions("0-3", flexible="2+"),
    "throttle_time_ms" / Int32,
    "filter_results" / array(DeleteAclsFilterResult),
)
