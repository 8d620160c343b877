"""Records of __consumer_offsets, byte for byte as Apache Kafka 3.9.1's own classes write and read them."""

import pytest

from kpy.errors import WireError
from kpy.group.group import Group, Member
from kpy.group.records import (
    CommittedOffset,
    group_key,
    group_record,
    group_tombstone,
    offset_key,
    offset_record,
    offset_tombstone,
    read_group,
    read_key,
    read_offset,
    subscribed_topics,
)
from kpy.group.transitions import GroupState
from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription
from kpy.wire.group_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    MemberMetadata,
    OffsetCommitKey,
    OffsetCommitValue,
    encode_offset_commit_value,
)

OFFSET_KEY = "000100056772c3bc6e0005746f70696300000007"
GROUP_KEY = "000200056772c3bc6e"
OFFSET_VALUES = {
    0: "00000000011f71fb04cb00056dc3a974610000018bcfe56800",
    1: "00010000011f71fb04cb00056dc3a974610000018bcfe568000000018bcfe65260",
    2: "00020000011f71fb04cb00056dc3a974610000018bcfe56800",
    3: "00030000011f71fb04cb0000000500056dc3a974610000018bcfe56800",
    4: "00040000011f71fb04cb00000005066dc3a974610000018bcfe5680000",
}
GROUP_VALUES = {
    0: (
        "00000008636f6e73756d657200000003000572616e67650003632d31000000010003632d31000163000a2f3132372e30"
        "2e302e310000271000000003010203000000020405"
    ),
    1: (
        "00010008636f6e73756d657200000003000572616e67650003632d31000000010003632d31000163000a2f3132372e30"
        "2e302e310000ea600000271000000003010203000000020405"
    ),
    2: (
        "00020008636f6e73756d657200000003000572616e67650003632d310000018bcfe56800000000010003632d31000163"
        "000a2f3132372e302e302e310000ea600000271000000003010203000000020405"
    ),
    3: (
        "00030008636f6e73756d657200000003000572616e67650003632d310000018bcfe56800000000010003632d31000469"
        "6e7374000163000a2f3132372e302e302e310000ea600000271000000003010203000000020405"
    ),
    4: (
        "000409636f6e73756d6572000000030672616e676504632d310000018bcfe568000204632d3105696e737402630b2f31"
        "32372e302e302e310000ea6000002710040102030304050000"
    ),
}
EMPTY_GROUP_VALUE = "0003000000000000ffffffff0000018bcfe5680000000000"

NOW_MS = 1_700_000_000_000


def a_member(protocols: dict[str, bytes], member_id: str = "c-1") -> Member:
    return Member(
        member_id=member_id,
        group_instance_id="inst",
        client_id="c",
        client_host="/127.0.0.1",
        rebalance_timeout_ms=60_000,
        session_timeout_ms=10_000,
        protocols=protocols,
    )


def a_group(*members: Member, protocol_type: str = "consumer") -> Group:
    group = Group("grün", NOW_MS)
    group.state, group.generation_id = GroupState.STABLE, 3
    group.protocol_type, group.protocol_name = protocol_type, "range"
    for member in members:
        group.add(member, protocol_type)
    return group


def test_keys_are_those_of_apache_kafka() -> None:
    assert offset_key("grün", "topic", 7).hex() == OFFSET_KEY
    assert group_key("grün").hex() == GROUP_KEY
    assert read_key(bytes.fromhex(OFFSET_KEY)) == OffsetCommitKey(group="grün", topic="topic", partition=7)
    assert read_key(b"\0\0" + bytes.fromhex(OFFSET_KEY)[2:]) == OffsetCommitKey(
        group="grün", topic="topic", partition=7
    )
    assert read_key(bytes.fromhex(GROUP_KEY)) == GroupMetadataKey(group="grün")


def test_keys_of_newer_group_protocols_are_passed_over_and_garbage_is_refused() -> None:
    assert read_key(b"\0\x03\0\x01g") is None
    for garbage in (b"", b"\0", b"\0\x01\0\x05ab", b"\0\x02"):
        with pytest.raises(WireError):
            read_key(garbage)


def test_offsets_are_written_as_version_3_and_with_an_expiry_of_their_own_as_version_1() -> None:
    committed = CommittedOffset(1234567890123, 5, "méta", NOW_MS)
    assert offset_record("grün", "topic", 7, committed) == (
        bytes.fromhex(OFFSET_KEY),
        bytes.fromhex(OFFSET_VALUES[3]),
    )
    expiring = CommittedOffset(1234567890123, 5, "méta", NOW_MS, NOW_MS + 60_000)
    assert offset_record("grün", "topic", 7, expiring)[1] == bytes.fromhex(OFFSET_VALUES[1])
    assert offset_tombstone("grün", "topic", 7) == (bytes.fromhex(OFFSET_KEY), None)


@pytest.mark.parametrize("version", OFFSET_VALUES)
def test_offsets_of_every_version_are_read(version: int) -> None:
    assert read_offset(bytes.fromhex(OFFSET_VALUES[version])) == CommittedOffset(
        1234567890123, 5 if version >= 3 else -1, "méta", NOW_MS, NOW_MS + 60_000 if version == 1 else -1
    )


@pytest.mark.parametrize(("offset", "leader_epoch", "timestamp_ms"), [(0, -1, 0), (2**63 - 1, 2**31 - 1, NOW_MS)])
def test_an_offset_without_metadata_is_what_the_codec_writes(offset: int, leader_epoch: int, timestamp_ms: int) -> None:
    committed = CommittedOffset(offset, leader_epoch, "", timestamp_ms)
    _, value = offset_record("g", "t", 0, committed)
    declared = OffsetCommitValue(offset, leader_epoch, "", timestamp_ms)
    assert value is not None
    assert value == encode_offset_commit_value(declared, 3)
    assert read_offset(value) == committed


def test_values_as_long_as_one_without_metadata_are_read_by_their_version() -> None:
    with_metadata = encode_offset_commit_value(OffsetCommitValue(7, -1, "abcd", NOW_MS), 0)
    assert len(with_metadata) == len(encode_offset_commit_value(OffsetCommitValue(7, -1, "", NOW_MS), 3))
    assert read_offset(with_metadata) == CommittedOffset(7, -1, "abcd", NOW_MS)
    with pytest.raises(WireError):
        read_offset(b"\0\3" + bytes(12) + b"\0\1" + bytes(8))


def test_a_group_is_written_as_version_3() -> None:
    group = a_group(a_member({"range": b"\1\2\3", "sticky": b"x"}))
    assert group_record(group, {"c-1": b"\4\5"}) == (bytes.fromhex(GROUP_KEY), bytes.fromhex(GROUP_VALUES[3]))
    empty = Group("grün", state_timestamp_ms=NOW_MS)
    assert group_record(empty, {})[1] == bytes.fromhex(EMPTY_GROUP_VALUE)
    assert group_tombstone("grün") == (bytes.fromhex(GROUP_KEY), None)


def test_a_member_without_an_assignment_is_written_with_an_empty_one() -> None:
    _, value = group_record(a_group(a_member({"range": b""})), {"somebody else": b"x"})
    assert value is not None
    assert [member.assignment for member in read_group(value).members] == [b""]


@pytest.mark.parametrize("version", GROUP_VALUES)
def test_groups_of_every_version_are_read(version: int) -> None:
    assert read_group(bytes.fromhex(GROUP_VALUES[version])) == GroupMetadataValue(
        protocol_type="consumer",
        generation=3,
        protocol="range",
        leader="c-1",
        current_state_timestamp=NOW_MS if version >= 2 else -1,
        members=[
            MemberMetadata(
                member_id="c-1",
                group_instance_id="inst" if version >= 3 else None,
                client_id="c",
                client_host="/127.0.0.1",
                rebalance_timeout=60_000 if version >= 1 else -1,
                session_timeout=10_000,
                subscription=b"\1\2\3",
                assignment=b"\4\5",
            )
        ],
    )


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_subscriptions_of_all_versions_tell_their_topics(version: int) -> None:
    first = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(topics=["a", "b"]), version)
    second = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(topics=["b", "c"]), version)
    group = a_group(a_member({"range": first}), a_member({"range": second}, "c-2"))
    assert subscribed_topics(group) == {"a", "b", "c"}


def test_a_subscription_of_a_version_yet_to_come_tells_its_topics_too() -> None:
    known = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(topics=["a"]), 3)
    assert subscribed_topics(a_group(a_member({"range": b"\0\x09" + known[2:] + b"more"}))) == {"a"}


def test_unreadable_subscriptions_and_other_kinds_of_groups_leave_the_topics_unknown() -> None:
    assert subscribed_topics(a_group(a_member({"range": b"\0\1\0\0\0\x09"}))) is None
    assert subscribed_topics(a_group(a_member({"range": b""}), protocol_type="connect")) is None
    assert subscribed_topics(a_group()) == frozenset()
