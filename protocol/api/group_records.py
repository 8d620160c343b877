"""What __consumer_offsets holds of classic groups: committed offsets and group metadata."""

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
    since(3, default(-1, "leader_epoch" / Int32)),  # -1 if unknown
    "metadata" / String,  # free text of the client
    "commit_timestamp" / Int64,
    since(1, until(1, default(-1, "expire_timestamp" / Int64))),  # -1 for by offsets.retention.minutes
)

GroupMetadataKey = record(
    versions("2"),
    "group" / String,
)

MemberMetadata = struct(
    "MemberMetadata",
    "member_id" / String,
    since(3, default(None, "group_instance_id" / nullable(String))),  # set for static members (KIP-345)
    "client_id" / String,
    "client_host" / String,
    since(1, default(-1, "rebalance_timeout" / Int32)),  # in ms
    "session_timeout" / Int32,  # in ms
    "subscription" / Bytes,  # its metadata for the chosen protocol
    "assignment" / Bytes,
)

GroupMetadataValue = record(
    versions("0-4", flexible="4+"),
    "protocol_type" / String,  # "consumer" for consumers
    "generation" / Int32,
    "protocol" / nullable(String),  # the chosen assignor, null before the first generation
    "leader" / nullable(String),  # member id
    since(2, default(-1, "current_state_timestamp" / Int64)),  # when the group entered its state
    "members" / array(MemberMetadata),
)
