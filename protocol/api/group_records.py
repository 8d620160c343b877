"""group_records."""

from protocol.grammar import (
    Bytes,
    Int32,
    Int64,
    String,
    array,
    default,
    nullable,
    record,
    since,
    struct,
    until,
    versions,
)

OffsetCommitKey = record(
    versions("0-1"),
    "group" / String,
    "topic" / String,
    "partition" / Int32,
)

OffsetCommitValue = record(
    versions("0-4", flexible="4+"),
    "offset" / Int64,
    since(3, default(-1, "leader_epoch" / Int32)),
    "metadata" / String,
    "commit_timestamp" / Int64,
    since(1, until(1, default(-1, "expire_timestamp" / Int64))),
)

GroupMetadataKey = record(
    versions("2"),
    "group" / String,
)

MemberMetadata = struct(
    "MemberMetadata",
    "member_id" / String,
    since(3, default(None, "group_instance_id" / nullable(String))),
    "client_id" / String,
    "client_host" / String,
    since(1, default(-1, "rebalance_timeout" / Int32)),
    "session_timeout" / Int32,
    "subscription" / Bytes,
    "assignment" / Bytes,
)

GroupMetadataValue = record(
    versions("0-4", flexible="4+"),
    "protocol_type" / String,
    "generation" / Int32,
    "protocol" / nullable(String),
    "leader" / nullable(String),
    since(2, default(-1, "current_state_timestamp" / Int64)),
    "members" / array(MemberMetadata),
)
