"""The coordinator's shell, with logs in memory: append, replay, commit and reply, leadership, loading, time."""

import logging
import struct
from dataclasses import replace

import pytest
import trio
from fastcrc.crc32 import iscsi as crc32c
from trio.testing import MockClock, wait_all_tasks_blocked

from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.coordinator import RECORDS_A_SLICE, in_batches, when_all
from kpy.errors import ErrorCode
from kpy.group.records import CommittedOffset, offset_record
from kpy.java_hash import string_hash, without_sign
from kpy.machine import StateRecord
from kpy.pending import Pending
from kpy.records.batch import CRC_POSITION, NewRecord, build_batch, iter_records
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from tests.unit.group.coordinator_shell import T0, Late, Shell, at_once, error_of, join, told

# -- where groups live -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group_id", "expected"),
    [
        ("", 0),
        ("g", 103),
        ("my-group", 1906497762),
        ("grün", 3185949),
        ("\U0001f600group", 1231696132),
        ("polygenelubricants", 0),
        ("a-much-longer-group-name-that-wraps-the-hash-around", 1696756246),
    ],
)
def test_groups_are_placed_by_javas_hash_of_their_id(group_id: str, expected: int) -> None:
    assert without_sign(string_hash(group_id)) == expected


def test_the_offsets_topic_is_created_as_configured() -> None:
    shell = Shell(offsets_topic_replication_factor=2)
    topic = at_once(shell.groups.ensure_topic())
    assert topic.partitions[0].replicas == (0, 0)
    assert topic.configs == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": str(100 * 1024 * 1024),
    }
    assert at_once(shell.groups.ensure_topic()) is topic


def test_the_number_of_partitions_is_the_topics_own_whatever_is_configured() -> None:
    shell = Shell()
    assert shell.groups.partition_for("my-group") == 0
    at_once(shell.cluster.create_internal_topic(CONSUMER_OFFSETS, 50, 1, {}))
    assert shell.groups.partition_for("my-group") == 1906497762 % 50


def test_before_the_topic_exists_and_where_another_leads_it_is_not_the_coordinator() -> None:
    shell = Shell()
    assert shell.ask(join()).error_code == ErrorCode.NOT_COORDINATOR
    del shell.replicas.led[0]
    shell.started()
    assert shell.ask(join()).error_code == ErrorCode.NOT_COORDINATOR
    assert error_of(shell.commit()) == ErrorCode.NOT_COORDINATOR


def test_a_partition_nobody_asked_for_has_no_machine() -> None:
    shell = Shell().started()
    assert shell.groups.list_groups([], []) == (ErrorCode.NONE, [])
    assert shell.groups._led[0].machine is None


# -- append, replay, commit, reply -------------------------------------------------------------------------------------


def test_a_commit_is_one_batch_in_the_log_and_answered_at_once() -> None:
    shell = Shell().started()
    assert error_of(shell.commit()) == ErrorCode.NONE
    (header, batch) = shell.partition.log.batches[0]
    assert (header.records_count, header.is_transactional) == (1, False)
    committed = CommittedOffset(5, -1, "", 1_000)
    assert [(each.key, each.value) for each in iter_records(batch)] == [offset_record("g", "t", 0, committed)]
    assert shell.fetch().topics[0].partitions[0].committed_offset == 5


def test_a_commit_that_other_replicas_do_not_have_yet_is_answered_when_they_do() -> None:
    shell = Shell().started()
    shell.partition.commits = False
    answer = shell.commit()
    reader = shell.fetch()
    heartbeat = shell.ask(HeartbeatRequest("g", 1, "nobody"))
    assert heartbeat.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert not answer.done
    assert not reader.done, "it would show an offset that may yet be lost"
    shell.groups.committed(0)
    assert not answer.done
    shell.partition.high_watermark = 1
    shell.groups.committed(0)
    assert error_of(told(answer)) == ErrorCode.NONE
    assert told(reader).topics[0].partitions[0].committed_offset == 5
    assert shell.fetch().topics[0].partitions[0].committed_offset == 5


def test_a_follower_that_syncs_before_the_assignment_is_committed_waits_for_it() -> None:
    shell = Shell().started()
    leader = shell.ask(join())
    follower = shell.ask(join())
    leader_again = shell.ask(join(leader.member_id))
    follower_id = told(follower).member_id
    shell.partition.commits = False
    assignments = [SyncGroupRequestAssignment(follower_id, b"t-0")]
    first = shell.ask(SyncGroupRequest("g", leader_again.generation_id, leader.member_id, assignments=assignments))
    second = shell.ask(SyncGroupRequest("g", leader_again.generation_id, follower_id))
    assert isinstance(second, Late)
    assert not second.done
    shell.partition.high_watermark = shell.partition.log.log_end_offset
    shell.groups.committed(0)
    assert told(first).assignment == b""
    assert told(second).assignment == b"t-0"


def test_replies_leave_in_the_order_of_their_records() -> None:
    shell = Shell().started()
    shell.partition.commits = False
    first, second = shell.commit(1), shell.commit(2)
    shell.partition.high_watermark = 1
    shell.groups.committed(0)
    assert first.done
    assert not second.done


@pytest.mark.parametrize(
    ("failure", "commit_error", "sync_error"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_COMMIT_OFFSET_SIZE, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_what_cannot_be_written_is_refused_and_does_not_count(
    failure: ErrorCode, commit_error: ErrorCode, sync_error: ErrorCode
) -> None:
    shell = Shell().started()
    member_id = shell.ask(join()).member_id
    shell.partition.failing = failure
    assert error_of(shell.commit()) == ErrorCode.UNKNOWN_MEMBER_ID
    assert shell.ask(SyncGroupRequest("g", 1, member_id)).error_code == sync_error
    request = OffsetCommitRequest(
        group_id="other",
        topics=[OffsetCommitRequestTopic(name="t", partitions=[OffsetCommitRequestPartition(committed_offset=1)])],
    )
    assert error_of(shell.ask(request)) == commit_error
    shell.partition.failing = None
    assert shell.ask(SyncGroupRequest("g", 1, member_id)).error_code == ErrorCode.NONE
    unwritten = shell.ask(OffsetFetchRequest("other", [OffsetFetchRequestTopic("t", [0])]))
    assert unwritten.topics[0].partitions[0].committed_offset == -1


def test_a_record_that_no_batch_can_hold_is_refused() -> None:
    shell = Shell().started()
    shell.partition.log.config.max_message_bytes = 80
    assert error_of(shell.commit()) == ErrorCode.INVALID_COMMIT_OFFSET_SIZE
    assert shell.partition.log.batches == []


def test_records_that_are_more_than_a_batch_holds_go_into_several_in_order() -> None:
    records: list[StateRecord] = [(bytes([number]) * 50, None) for number in range(7)]
    batches = list(in_batches(records, 300))
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    assert [record for batch in batches for record in batch] == records
    assert list(in_batches(records, 10_000)) == [records]


def test_every_move_of_a_group_is_logged_with_the_clients_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kpy")
    shell = Shell().started()
    message = join()
    message.reason = "first poll"
    member_id = shell.ask(message).member_id
    shell.ask(LeaveGroupRequest("g", members=[MemberIdentity(member_id, None, "x" * 1_000)]))
    assert caplog.messages == [
        f'group g in generation 0: Empty -> PreparingRebalance: a new member joins, {member_id} ("first poll")',
        "group g in generation 1: PreparingRebalance -> CompletingRebalance: "
        "the members have joined, or their time is up",
        "group g in generation 1: CompletingRebalance -> PreparingRebalance: a member leaves or falls silent, "
        f'{member_id} ("{"x" * 255}")',
        "group g in generation 2: PreparingRebalance -> Empty: the last member goes",
    ]


def test_a_client_that_goes_away_abandons_its_answer_and_stays_a_member() -> None:
    shell = Shell().started()
    leader = shell.ask(join()).member_id
    shell.ask(SyncGroupRequest("g", 1, leader))
    parked = shell.ask(join())
    parked.pending.abandon()
    assert shell.ask(join(leader)).generation_id == 2
    assert len(shell.groups._led[0].machine.groups["g"].members) == 2


# -- leadership and loading --------------------------------------------------------------------------------------------


def test_resigning_sends_everybody_who_waits_to_the_new_coordinator() -> None:
    shell = Shell().started()
    leader = shell.ask(join()).member_id
    shell.ask(SyncGroupRequest("g", 1, leader))
    parked = shell.ask(join())
    shell.partition.commits = False
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    topics = [OffsetCommitRequestTopic(name="t", partitions=[partition])]
    uncommitted = shell.ask(OffsetCommitRequest("g", 1, leader, topics=topics))
    del shell.replicas.led[0]
    shell.again()
    assert told(parked).error_code == ErrorCode.NOT_COORDINATOR
    assert error_of(told(uncommitted)) == ErrorCode.NOT_COORDINATOR
    assert shell.ask(HeartbeatRequest("g", 1, leader)).error_code == ErrorCode.NOT_COORDINATOR


def test_in_another_epoch_the_log_is_read_again_because_another_broker_may_have_written_to_it() -> None:
    shell = Shell().started()
    shell.commit()
    shell.partition.leader_epoch = 2
    shell.again()
    assert shell.fetch().error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def test_metadata_that_changes_nothing_for_the_partition_leaves_its_groups_alone() -> None:
    shell = Shell().started()
    shell.commit()
    machine = shell.groups._led[0].machine
    shell.again()
    assert shell.groups._led[0].machine is machine


def test_offsets_of_a_deleted_topic_go_with_it_also_if_it_is_created_again_at_once() -> None:
    shell = Shell().started()
    shell.commit(5)
    shell.cluster.put(replace(T0, configs={"retention.ms": "1"}))
    assert shell.fetch().topics[0].partitions[0].committed_offset == 5
    shell.cluster.put(replace(T0, topic_id=b"n" * 16))
    assert shell.fetch().topics[0].partitions[0].committed_offset == -1
    shell.commit(6)
    shell.cluster.image = replace(
        shell.cluster.image, topics={CONSUMER_OFFSETS: shell.cluster.image.topics[CONSUMER_OFFSETS]}
    )
    shell.groups.apply(shell.cluster.image)
    assert shell.fetch().topics[0].partitions[0].committed_offset == -1


def test_while_a_shard_is_loading_members_need_not_worry_and_others_come_back() -> None:
    shell = Shell()
    shell.partition.log.write(
        build_batch([NewRecord(0, *offset_record("g", "t", 0, CommittedOffset(7, -1, "", 0)))]),
    )
    shell.started()
    assert shell.ask(HeartbeatRequest("g", 1, "m")).error_code == ErrorCode.NONE
    assert shell.ask(SyncGroupRequest("g", 1, "m")).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert shell.ask(join()).error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert shell.fetch().error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert shell.groups.list_groups([], []) == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, [])


def a_marker(committed: bool) -> bytes:
    """A control record: version, then 0 for an abort or 1 for a commit; the value is a version and an epoch."""
    record = NewRecord(0, bytes([0, 0, 0, int(committed)]), bytes(6), ())
    return build_batch([record], producer_id=9, producer_epoch=0, transactional=True, control=True)


def test_loading_replays_plain_records_transactions_and_their_markers() -> None:
    async def main() -> None:
        shell = Shell()
        log = shell.partition.log

        def write(partition: int, offset: int, producer_id: int) -> None:
            key, value = offset_record("g", "t", partition, CommittedOffset(offset, -1, "", 0))
            log.write(build_batch([NewRecord(0, key, value)], producer_id=producer_id, transactional=producer_id != -1))

        write(0, 1, -1)
        write(0, 2, 9)
        log.write(a_marker(committed=True))
        write(1, 3, 9)
        log.write(a_marker(committed=False))
        write(2, 4, -1)
        log.write(build_batch([NewRecord(0, b"\0\x02\0\x05g", b"garbage")]))
        shell.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            await wait_all_tasks_blocked()
            assert [each.group_id for each in shell.groups.list_groups(["empty"], [])[1]] == ["g"]
            answer = shell.ask(OffsetFetchRequest("g", [OffsetFetchRequestTopic("t", [0, 1, 2])]))
            assert [each.committed_offset for each in answer.topics[0].partitions] == [2, -1, 4]
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_batch_is_loaded_up_to_its_first_malformed_record(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        shell = Shell()
        offsets = [offset_record("g", "t", index, CommittedOffset(7, -1, "", 0)) for index in range(2)]
        data = bytearray(build_batch(NewRecord(0, key, value) for key, value in offsets))
        data[-1] = 0xFF  # The number of headers of the last record is a varint without an end.
        struct.pack_into(">I", data, CRC_POSITION, crc32c(bytes(data[CRC_POSITION + 4 :])))
        shell.partition.log.write(bytes(data))
        shell.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            await wait_all_tasks_blocked()
            answer = shell.ask(OffsetFetchRequest("g", [OffsetFetchRequestTopic("t", [0, 1])]))
            assert [each.committed_offset for each in answer.topics[0].partitions] == [7, -1]
            nursery.cancel_scope.cancel()

    trio.run(main)
    (message,) = [each for each in caplog.messages if "passed over" in each]
    assert message.startswith("__consumer_offsets-0: the rest of its batch from offset 1 on is passed over")


def test_a_log_that_cannot_be_read_has_no_coordinator() -> None:
    async def main() -> None:
        shell = Shell()
        shell.partition.log.write(build_batch([NewRecord(0, b"\0\x03", None)]))
        shell.partition.log.broken = True
        shell.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            await wait_all_tasks_blocked()
            assert shell.ask(join()).error_code == ErrorCode.NOT_COORDINATOR
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_loading_gives_way_to_others_and_stops_when_the_partition_is_taken_away() -> None:
    async def main() -> None:
        shell = Shell()
        for number in range(2_000):
            key, value = offset_record(f"g{number}", "t", 0, CommittedOffset(1, -1, "", 0))
            shell.partition.log.write(build_batch([NewRecord(0, key, value)]))
        shell.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            for _ in range(2_000 // RECORDS_A_SLICE):
                await trio.lowlevel.checkpoint()
                assert shell.groups.list_groups([], [])[0] == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            del shell.replicas.led[0]
            shell.again()
            await wait_all_tasks_blocked()
            assert shell.groups.list_groups([], []) == (ErrorCode.NONE, [])
            nursery.cancel_scope.cancel()

    trio.run(main)


# -- time --------------------------------------------------------------------------------------------------------------


def test_time_alone_ends_sessions_and_waits_for_replicas() -> None:
    async def main() -> None:
        shell = Shell(lambda: int(trio.current_time() * 1_000)).started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            await wait_all_tasks_blocked()
            member_id = shell.ask(join()).member_id
            shell.ask(SyncGroupRequest("g", 1, member_id))
            shell.partition.commits = False
            topics = [OffsetCommitRequestTopic(name="t", partitions=[OffsetCommitRequestPartition(committed_offset=1)])]
            uncommitted = shell.ask(OffsetCommitRequest("g", 1, member_id, topics=topics))
            await trio.sleep(4.9)
            assert not uncommitted.done
            await trio.sleep(0.2)
            assert error_of(told(uncommitted)) == ErrorCode.COORDINATOR_NOT_AVAILABLE
            shell.partition.commits = True
            await trio.sleep(4)
            assert shell.ask(HeartbeatRequest("g", 1, member_id)).error_code == ErrorCode.NONE
            await trio.sleep(10.1)
            assert shell.ask(HeartbeatRequest("g", 1, member_id)).error_code == ErrorCode.UNKNOWN_MEMBER_ID
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_commits_that_have_waited_too_long_are_given_up_although_each_answer_lets_in_another() -> None:
    async def main() -> None:
        shell = Shell(lambda: int(trio.current_time() * 1_000)).started()
        shell.partition.commits = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell.groups.run)
            await wait_all_tasks_blocked()
            waiting = [shell.commit(offset) for offset in (1, 2)]
            let_in: list[Late] = []
            for late in waiting:
                late.on_answer = lambda: let_in.append(shell.commit(3))
            await trio.sleep(5.1)
            assert [error_of(told(late)) for late in waiting] == [ErrorCode.COORDINATOR_NOT_AVAILABLE] * 2
            await trio.sleep(5.1)
            assert [error_of(told(late)) for late in let_in] == [ErrorCode.COORDINATOR_NOT_AVAILABLE] * 2
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- several groups in one request -------------------------------------------------------------------------------------


def test_answers_that_are_there_are_combined_at_once_and_others_when_the_last_one_comes() -> None:
    assert when_all([1, 2], sum) == 3
    late: list[Pending[int]] = [Pending(), Pending()]
    whole = when_all([late[0], 2, late[1]], list)
    combined: list[list[int]] = []
    whole.deliver_to(combined.append)
    late[1].complete(3)
    assert combined == []
    late[0].complete(1)
    assert combined == [[1, 2, 3]]
