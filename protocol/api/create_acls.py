"""CreateAcls: grants and denies (KIP-140)."""

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
    "resource_type" / Int8,  # 2 topic, 3 group, 4 cluster, 5 transactional id, 6 delegation token, 7 user
    "resource_name" / String,
    since(1, default(3, "resource_pattern_type" / Int8)),  # 3 literal, 4 prefixed
    "principal" / String,
    "host" / String,  # * for any
    "operation" / Int8,  # an AclOperation
    "permission_type" / Int8,  # 2 deny, 3 allow
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
