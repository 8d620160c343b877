"""Committed offsets in a shard of groups: what is kept, what is shown to whom, and what expires."""

import pytest

from kpy.errors import ErrorCode
from kpy.group import shard as shard_module
from kpy.group.records import CommittedOffset, offset_record
from kpy.machine import Request, Tick
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
)
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
)
from tests.unit.group.lone_shard import NOW_MS, Told, commit, fetch, join

# -- offsets -----------------------------------------------------------------------------------------------------------


def test_an_offset_travels_with_its_metadata_and_leader_epoch() -> None:
    told = Told()
    told.ask(commit((0, 2**62), metadata="ünicode", leader_epoch=7), 9)
    shown = fetch(told, 9).groups[0].topics[0].partitions
    assert [(each.committed_offset, each.committed_leader_epoch, each.metadata) for each in shown] == [
        (2**62, 7, "ünicode"),
        (-1, -1, ""),
    ]


def test_null_metadata_comes_back_as_an_empty_string() -> None:
    told = Told()
    told.ask(commit((0, 1)), 2)
    assert fetch(told, 1).topics[0].partitions[0].metadata == ""


@pytest.mark.parametrize("version", [1, 2, 5, 7])
def test_below_version_8_the_offsets_of_the_one_group_are_on_top(version: int) -> None:
    told = Told()
    told.ask(commit((0, 5)), 2)
    answer = fetch(told, version)
    assert (answer.groups, answer.error_code) == ([], ErrorCode.NONE)
    assert [each.committed_offset for each in answer.topics[0].partitions] == [5, -1]


@pytest.mark.parametrize("version", [2, 7, 8, 9])
def test_null_topics_ask_for_all(version: int) -> None:
    told = Told()
    told.ask(commit((0, 5), (2, 6)), 2)
    answer = fetch(told, version, all_topics=True)
    topics = answer.topics if version < 8 else answer.groups[0].topics
    assert [(each.partition_index, each.committed_offset) for each in topics[0].partitions] == [(0, 5), (2, 6)]


def test_fetching_waits_for_what_was_appended_to_be_committed() -> None:
    told = Told()
    request = Request(OffsetFetchRequest(group_id="g", topics=[]), 5, "c", "/h", object())
    assert told.shard.handle(request, NOW_MS).reads_state


@pytest.mark.parametrize("version", [5, 7])
def test_offsets_that_a_transaction_may_change_are_unstable_only_to_those_who_ask_for_stable_ones(version: int) -> None:
    told = Told()
    key, value = offset_record("g", "t", 1, CommittedOffset(9, -1, "", NOW_MS))
    told.shard.replay(key, value, 77)
    partitions = fetch(told, version, stable=True).topics[0].partitions
    assert [each.error_code for each in partitions] == [ErrorCode.NONE, ErrorCode.UNSTABLE_OFFSET_COMMIT]
    assert [each.error_code for each in fetch(told, version).topics[0].partitions] == [ErrorCode.NONE, ErrorCode.NONE]


def test_a_tombstone_takes_what_a_transaction_wrote_before_it() -> None:
    told = Told()
    key, value = offset_record("g", "t", 1, CommittedOffset(9, -1, "", NOW_MS))
    told.shard.replay(key, value, 77)
    told.shard.replay(key, None)
    told.shard.replay_end_of_transaction(77, committed=True)
    assert fetch(told, 7, all_topics=True).topics == []


@pytest.mark.parametrize(("version", "expires"), [(1, False), (2, True), (4, True), (5, False)])
def test_only_versions_2_to_4_set_a_retention_of_their_own(version: int, expires: bool) -> None:
    told = Told(offsets_retention_check_interval_ms=1_000)
    told.ask(commit((0, 5), retention_time_ms=500), version)
    told.now_ms += 1_000
    told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert (told.shard.offsets.get("g", "t", 0) is None) == expires


def test_version_1_dates_its_commits_itself() -> None:
    told = Told()
    told.ask(commit((0, 5), commit_timestamp=123), 1)
    told.ask(commit((1, 5), commit_timestamp=-1), 1)
    told.ask(commit((2, 5), commit_timestamp=123), 2)
    assert [each.commit_timestamp_ms for _, _, each in told.shard.offsets.of_group("g")] == [123, NOW_MS, NOW_MS]


@pytest.mark.parametrize(
    ("kept", "too_long"),
    [("1234", "12345"), ("äöü€", "äöü€€"), ("𝄞𝄞", "𝄞𝄞1")],
    ids=["a byte each", "a code unit each", "two code units each"],
)
def test_metadata_up_to_the_limit_is_kept_and_one_code_unit_of_utf_16_more_is_refused(kept: str, too_long: str) -> None:
    """Apache Kafka compares String.length with offset.metadata.max.bytes."""
    told = Told(offset_metadata_max_bytes=4)
    assert told.ask(commit((0, 5), metadata=kept), 2).topics[0].partitions[0].error_code == ErrorCode.NONE
    refused = told.ask(commit((0, 6), metadata=too_long), 2).topics[0].partitions[0]
    assert refused.error_code == ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert told.shard.offsets.get("g", "t", 0) == CommittedOffset(5, -1, kept, NOW_MS)


def test_a_partition_that_does_not_exist_is_said_so_whoever_commits() -> None:
    told = Told()
    told.stable_group()
    answer = told.ask(commit((3, 1), (0, 1)), 9)
    assert [each.error_code for each in answer.topics[0].partitions] == [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_MEMBER_ID,
    ]


def test_a_commit_counts_as_a_heartbeat() -> None:
    told = Told()
    member_id = told.stable_group()
    told.now_ms += 9_000
    told.ask(commit((0, 1), generation_id_or_member_epoch=1, member_id=member_id), 9)
    told.now_ms += 9_000
    told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert member_id in told.shard.groups["g"].members


def test_offsets_of_a_group_in_a_rebalance_do_not_expire() -> None:
    told = Told(offsets_retention_ms=1_000, offsets_retention_check_interval_ms=1_000)
    told.ask(commit((0, 1)), 2)
    told.ask(join(), 3)
    told.now_ms += 2_000
    told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert told.shard.offsets.count("g") == 1


def test_a_group_whose_only_member_to_be_never_came_is_forgotten_without_a_word_in_the_log() -> None:
    told = Told(offsets_retention_check_interval_ms=20_000)
    told.ask(join(), 4)
    told.now_ms += 20_000
    told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert not told.shard.groups
    assert not told.records


def test_a_sweep_that_finds_much_goes_on_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "TOMBSTONES_A_SWEEP", 3)
    told = Told(offsets_retention_ms=1_000, offsets_retention_check_interval_ms=1_000)
    for number in range(5):
        told.ask(OffsetCommitRequest(group_id=f"g{number}", topics=commit((0, 1)).topics), 2)
    told.now_ms += 1_000
    told.records.clear()
    told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert len(told.records) == 4
    assert told.shard.next_deadline_ms() == told.now_ms + 1
    while told.shard.groups:
        told.now_ms += 1
        told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert len(told.records) == 10
