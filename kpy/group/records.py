"""The records of __consumer_offsets: what they say, in Apache Kafka's own formats.

Written are OffsetCommitValue version 3 (version 1 where a client of old set its own retention) and GroupMetadataValue
version 3; read are versions 0 to 4 of both. Kafka classes GroupCoordinatorRecordHelpers and
GroupCoordinatorRecordSerde.
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from kpy.errors import WireError
from kpy.group.group import Group
from kpy.machine import StateRecord
from kpy.wire.consumer_protocol import decode_consumer_protocol_subscription
from kpy.wire.group_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
    decode_group_metadata_key,
    decode_group_metadata_value,
    decode_offset_commit_key,
    decode_offset_commit_value,
    encode_group_metadata_key,
    encode_group_metadata_value,
    encode_offset_commit_key,
    encode_offset_commit_value,
)

OFFSET_KEY_VERSIONS = (0, 1)
OFFSET_KEY_VERSION = 1
GROUP_KEY_VERSION = 2
GROUP_VALUE_VERSION = 3
OFFSET_VALUE_VERSION = 3
OFFSET_VALUE_VERSION_WITH_EXPIRY = 1
_WITHOUT_METADATA = Struct(">hqihq")
"""OffsetCommitValue version 3 as nearly every commit writes it: version, offset, leader epoch, no metadata, timestamp.

Each is written and read back at once, which takes 8 us by the codec and 1 us so.
"""
REMEMBERED_KEYS = 1_000
"""A group commits for the same partitions again and again. A key may have 32 KiB."""


class CommittedOffset(NamedTuple):
    """An offset that a group committed. `leader_epoch` is -1 when the client did not give one."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp_ms: int
    expire_timestamp_ms: int = -1
    """When it expires, if the client set a retention of its own (OffsetCommit 2 to 4); -1 otherwise."""


def group_record(group: Group, assignments: Mapping[str, bytes]) -> StateRecord:
    """The group as it is from now on, with these assignments by member id. A group without members has no protocol."""
    protocol = group.protocol_name
    members = [
        MemberMetadata(
            member_id=member.member_id,
            group_instance_id=member.group_instance_id,
            client_id=member.client_id,
            client_host=member.client_host,
            rebalance_timeout=member.rebalance_timeout_ms,
            session_timeout=member.session_timeout_ms,
            subscription=member.protocols[protocol] if protocol is not None else b"",
            assignment=assignments.get(member.member_id, b""),
        )
        for member in group.members.values()
    ]
    value = GroupMetadataValue(
        protocol_type=group.protocol_type or "",
        generation=group.generation_id,
        protocol=protocol,
        leader=group.leader_id,
        current_state_timestamp=-1 if group.state_timestamp_ms is None else group.state_timestamp_ms,
        members=members,
    )
    return group_key(group.group_id), encode_group_metadata_value(value, GROUP_VALUE_VERSION)


def group_tombstone(group_id: str) -> StateRecord:
    return group_key(group_id), None


def offset_record(group_id: str, topic: str, partition: int, committed: CommittedOffset) -> StateRecord:
    return offset_key(group_id, topic, partition), _offset_value(committed)


def _offset_value(committed: CommittedOffset) -> bytes:
    offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms = committed
    expires = expire_timestamp_ms != -1
    if not metadata and not expires:
        return _WITHOUT_METADATA.pack(OFFSET_VALUE_VERSION, offset, leader_epoch, 0, commit_timestamp_ms)
    value = OffsetCommitValue(
        offset=offset,
        leader_epoch=leader_epoch,
        metadata=metadata,
        commit_timestamp=commit_timestamp_ms,
        expire_timestamp=expire_timestamp_ms,
    )
    return encode_offset_commit_value(value, OFFSET_VALUE_VERSION_WITH_EXPIRY if expires else OFFSET_VALUE_VERSION)


def offset_tombstone(group_id: str, topic: str, partition: int) -> StateRecord:
    return offset_key(group_id, topic, partition), None


def group_key(group_id: str) -> bytes:
    return encode_group_metadata_key(GroupMetadataKey(group=group_id), GROUP_KEY_VERSION)


@lru_cache(REMEMBERED_KEYS)
def offset_key(group_id: str, topic: str, partition: int) -> bytes:
    return encode_offset_commit_key(
        OffsetCommitKey(group=group_id, topic=topic, partition=partition), OFFSET_KEY_VERSION
    )


@lru_cache(REMEMBERED_KEYS)
def read_key(key: bytes) -> OffsetCommitKey | GroupMetadataKey | None:
    """What a record is about, or None for the kinds of newer group protocols, which kpy does not keep.

    Whoever asks next about the same key gets the same object, so nobody changes it.
    Raises WireError for bytes that are no key at all.
    """
    if len(key) < 2:
        raise WireError("a record key of __consumer_offsets is shorter than its version")
    version = int.from_bytes(key[:2], "big", signed=True)
    if version in OFFSET_KEY_VERSIONS:
        return decode_offset_commit_key(memoryview(key))
    if version == GROUP_KEY_VERSION:
        return decode_group_metadata_key(memoryview(key))
    return None


def read_offset(value: bytes) -> CommittedOffset:
    if len(value) == _WITHOUT_METADATA.size:
        version, offset, leader_epoch, metadata_bytes, commit_timestamp_ms = _WITHOUT_METADATA.unpack(value)
        if version == OFFSET_VALUE_VERSION and metadata_bytes == 0:
            return CommittedOffset(offset, leader_epoch, "", commit_timestamp_ms)
    read = decode_offset_commit_value(memoryview(value))
    return CommittedOffset(read.offset, read.leader_epoch, read.metadata, read.commit_timestamp, read.expire_timestamp)


def read_group(value: bytes) -> GroupMetadataValue:
    return decode_group_metadata_value(memoryview(value))


def subscribed_topics(group: Group) -> frozenset[str] | None:
    """The topics that the members of a consumer group subscribe to together, read from the protocol they agreed on.

    None for other kinds of groups and when a member's metadata is not a consumer's: then the coordinator does not know.
    """
    if not group.is_consumer_group:
        return None
    topics: set[str] = set()
    for member in group.members.values():
        metadata = member.protocols.get(group.protocol_name or "", b"")
        try:
            # Newer versions of the subscription only add fields at its end, so version 0 reads the topics of them all.
            subscription = decode_consumer_protocol_subscription(memoryview(b"\0\0" + metadata[2:]))
        except WireError:
            return None
        topics.update(subscription.topics)
    return frozenset(topics)
