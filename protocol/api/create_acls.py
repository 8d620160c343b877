"""CreateAcls."""

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

AclCreation = struct(
    "AclCreation",
    "resource_type" / Int8,
    "resource_name" / String,
    since(1, default(3, "resource_pattern_type" / Int8)),
    "principal" / String,
    "host" / String,
    "operation" / Int8,
    "permission_type" / Int8,
)

CreateAclsRequest = request(
    30,
    versions("0-3", flexible="2+"),
    "creations" / array(AclCreation),
)

AclCreationResult = struct(
    "AclCreationResult",
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

CreateAclsResponse = response(
    30,
    versions("0-3", flexible="2+"),
    "throttle_time_ms" / Int32,
    "results" / array(AclCreationResult),
)
