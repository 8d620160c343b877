"""Commits that come in one round of the poller: they are written together and answered as if each had been alone."""

from dataclasses import replace
from typing import Any

from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.errors import ErrorCode
from kpy.group.records import CommittedOffset, offset_record
from kpy.machine import RECORD_OVERHEAD_BYTES, StateRecord
from kpy.records.batch import HEADER_SIZE, iter_records
from tests.unit.group.coordinator_shell import T0, FakePartition, Late, Shell, at_once, error_of, told


def batches(shell: Shell) -> list[list[tuple[bytes | None, bytes | None]]]:
    """What each batch of the log holds."""
    return [[(each.key, each.value) for each in iter_records(batch)] for _, batch in shell.partition.log.batches]


def offsets(*offsets_: int, group_id: str = "g") -> list[StateRecord]:
    return [offset_record(group_id, "t", 0, CommittedOffset(offset, -1, "", 1_000)) for offset in offsets_]


def test_commits_behind_the_first_of_a_round_are_one_batch_and_answered_when_the_round_ends() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    assert error_of(shell.commit(1)) == ErrorCode.NONE
    late = [shell.commit(offset) for offset in (2, 3, 4)]
    assert not any(answer.done for answer in late)
    assert batches(shell) == [offsets(1)]
    round_.end()
    assert [error_of(told(answer)) for answer in late] == [ErrorCode.NONE] * 3
    assert batches(shell) == [offsets(1), offsets(2, 3, 4)]
    assert shell.fetch().topics[0].partitions[0].committed_offset == 4


def test_the_next_round_begins_with_a_commit_that_is_carried_out_at_once() -> None:
    shell = Shell().started()
    for offset in (1, 2):
        round_ = shell.begin_round()
        assert error_of(shell.commit(offset)) == ErrorCode.NONE
        round_.end()
    assert error_of(shell.commit(3)) == ErrorCode.NONE
    assert batches(shell) == [offsets(1), offsets(2), offsets(3)]


def test_what_is_asked_behind_a_commit_of_the_same_round_sees_it() -> None:
    shell = Shell().started()
    shell.begin_round()
    shell.commit(1)
    late = shell.commit(2)
    assert shell.fetch().topics[0].partitions[0].committed_offset == 2
    assert error_of(told(late)) == ErrorCode.NONE
    assert not shell.commit(3).done


def test_a_deleted_topic_takes_commits_of_the_same_round_along() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    late = shell.commit(2)
    shell.cluster.put(replace(T0, topic_id=b"n" * 16))
    assert error_of(told(late)) == ErrorCode.NONE
    round_.end()
    assert shell.fetch().topics[0].partitions[0].committed_offset == -1


def test_a_commit_that_is_refused_does_not_hold_up_those_around_it() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    before, refused, after = shell.commit(2), shell.commit(3, generation_id=7), shell.commit(4)
    round_.end()
    assert error_of(told(refused)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert (error_of(told(before)), error_of(told(after))) == (ErrorCode.NONE, ErrorCode.NONE)
    assert batches(shell) == [offsets(1), offsets(2, 4)]


def test_a_group_that_a_commit_of_the_round_makes_is_there_for_the_next_one() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    made, refused = shell.commit(2, group_id="new"), shell.commit(3, group_id="new", generation_id=7)
    round_.end()
    assert error_of(told(made)) == ErrorCode.NONE
    assert error_of(told(refused)) == ErrorCode.UNKNOWN_MEMBER_ID, "not ILLEGAL_GENERATION, as of one that is not there"


def test_a_round_that_cannot_be_written_refuses_each_of_its_commits_and_none_counts() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    late = [shell.commit(2), shell.commit(3), shell.commit(4, generation_id=7)]
    shell.partition.failing = ErrorCode.NOT_ENOUGH_REPLICAS
    round_.end()
    unwritten = ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert [error_of(told(answer)) for answer in late] == [unwritten, unwritten, ErrorCode.UNKNOWN_MEMBER_ID]
    assert shell.fetch().topics[0].partitions[0].committed_offset == 1


def test_commits_of_a_round_go_into_as_many_batches_as_they_need_and_one_too_large_is_refused_alone() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    one_record = sum(len(part or b"") for part in offsets(1)[0]) + RECORD_OVERHEAD_BYTES
    shell.partition.log.config.max_message_bytes = HEADER_SIZE + 2 * one_record
    late = [shell.commit(2), shell.commit(3), shell.commit(4, metadata="m" * 100), shell.commit(5)]
    round_.end()
    too_large = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    assert [error_of(told(answer)) for answer in late] == [ErrorCode.NONE, ErrorCode.NONE, too_large, ErrorCode.NONE]
    assert batches(shell) == [offsets(1), offsets(2, 3), offsets(5)]


def test_commits_of_a_round_wait_for_other_replicas_like_any() -> None:
    shell = Shell().started()
    shell.partition.commits = False
    round_ = shell.begin_round()
    answers = [shell.commit(1), shell.commit(2), shell.commit(3)]
    round_.end()
    assert not any(answer.done for answer in answers)
    shell.partition.high_watermark = 3
    shell.groups.committed(0)
    assert [error_of(told(answer)) for answer in answers] == [ErrorCode.NONE] * 3


def test_an_answer_may_end_the_leadership_while_a_round_is_written() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    written = shell.commit(2)
    unwritten = shell.commit(3, metadata="m" * 100)
    shell.partition.log.config.max_message_bytes = HEADER_SIZE + 200

    def resign() -> None:
        shell.partition.leader_epoch = 1
        shell.groups.leaders_changed()

    written.on_answer = resign
    round_.end()
    assert error_of(told(written)) == ErrorCode.NONE
    assert error_of(told(unwritten)) == ErrorCode.NOT_COORDINATOR
    assert batches(shell) == [offsets(1), offsets(2)]


def test_a_commit_that_an_answer_at_the_end_of_a_round_lets_in_is_carried_out_at_once() -> None:
    shell = Shell()
    shell.replicas.led[1] = FakePartition(1)
    at_once(shell.cluster.create_internal_topic(CONSUMER_OFFSETS, 2, 1, {}))
    first, second = "my-group", "g"
    assert (shell.groups.partition_for(first), shell.groups.partition_for(second)) == (0, 1)
    round_ = shell.begin_round()
    let_in: list[Any] = []
    for group_id in (first, second):
        shell.commit(1, group_id=group_id)
    for group_id in (first, second):
        shell.commit(2, group_id=group_id).on_answer = lambda: let_in.extend(
            shell.commit(3, group_id=each) for each in (first, second)
        )
    round_.end()
    answers = [told(answer) if isinstance(answer, Late) else answer for answer in let_in]
    assert [error_of(answer) for answer in answers] == [ErrorCode.NONE] * 4


def test_a_coordinator_that_resigns_writes_nothing_of_the_round_any_more() -> None:
    shell = Shell().started()
    round_ = shell.begin_round()
    shell.commit(1)
    late = shell.commit(2)
    shell.partition.leader_epoch = 1
    shell.groups.leaders_changed()
    assert error_of(told(late)) == ErrorCode.NOT_COORDINATOR
    round_.end()
    assert batches(shell) == [offsets(1)]
