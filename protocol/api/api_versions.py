"""ApiVersions: what the broker speaks, asked first on every connection.

A broker that does not know the request's version answers in v0 with UNSUPPORTED_VERSION. The response always has header
v0, since a client cannot know yet whether the broker speaks flexible versions (KIP-511).
"""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int16,
    Int32,
    Int64,
    String,
    array,
    default,
    request,
    response,
    since,
    struct,
    tagged,
    versions,
)

ApiVersionsRequest = request(
    18,
    versions("0-4", flexible="3+"),
    since(3, "client_software_name" / String),  # of the client library (KIP-511)
    since(3, "client_software_version" / String),
)

ApiVersion = struct(
    "ApiVersion",
    "api_key" / Int16,
    "min_version" / Int16,
    "max_version" / Int16,
)

SupportedFeatureKey = struct(
    "SupportedFeatureKey",
    "name" / String,  # of the feature
    "min_version" / Int16,
    "max_version" / Int16,
)

FinalizedFeatureKey = struct(
    "FinalizedFeatureKey",
    "name" / String,  # of the feature
    "max_version_level" / Int16,
    "min_version_level" / Int16,
)

ApiVersionsResponse = response(
    18,
    versions("0-4", flexible="3+"),
    "error_code" / ErrorCode,
    "api_keys" / array(ApiVersion),
    since(1, "throttle_time_ms" / Int32),
    # finalized versions the broker could work with (KIP-584)
    since(3, tagged(0, "supported_features" / array(SupportedFeatureKey))),
    since(3, tagged(1, default(-1, "finalized_features_epoch" / Int64))),  # -1 if unknown
    # finalized versions that the cluster works with
    since(3, tagged(2, "finalized_features" / array(FinalizedFeatureKey))),
    since(3, tagged(3, "zk_migration_ready" / Bool)),  # for the migration to KRaft
)
