"""UpdateFeatures: finalizes versions of cluster-wide features (KIP-584)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int8,
    Int16,
    Int32,
    String,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

FeatureUpdateKey = struct(
    "FeatureUpdateKey",
    "feature" / String,
    "max_version_level" / Int16,  # 0 removes the feature
    until(0, "allow_downgrade" / Bool),
    since(1, default(1, "upgrade_type" / Int8)),  # 1 upgrade, 2 safe downgrade, 3 downgrade that may lose data
)

UpdateFeaturesRequest = request(
    57,
    versions("0-2", flexible="0+"),
    default(60000, "timeout_ms" / Int32),
    "feature_updates" / array(FeatureUpdateKey),
    since(1, "validate_only" / Bool),  # check everything, change nothing
)

UpdatableFeatureResult = struct(
    "UpdatableFeatureResult",
    "feature" / String,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
)

UpdateFeaturesResponse = response(
    57,
    versions("0-2", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "error_message" / nullable(String),
    until(1, "results" / array(UpdatableFeatureResult)),
)
