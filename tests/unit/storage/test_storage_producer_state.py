"""Idempotence, transactions and the last stable offset (KIP-98), and the snapshots they are kept in."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from fastcrc import crc32

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import CONTROL, TRANSACTIONAL, BatchHeader, NewRecord, build_batch
from kpy.storage import producer_state
from kpy.storage.fs import OsFs
from kpy.storage.index import AbortedTxn
from kpy.storage.producer_state import EndMarker, ProducerState, parse_marker
from kpy.storage.snapshots import CorruptSnapshotError, Snapshots, read_snapshot, write_snapshot

PID = 77
DAY_MS = 86_400_000
COMMIT, ABORT = EndMarker(False, 0), EndMarker(True, 0)


def batch(
    sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = PID, timestamp: int = 0, attributes: int = 0
) -> BatchHeader:
    return BatchHeader(0, 49, 0, 2, 0, attributes, count - 1, 0, timestamp, producer_id, epoch, sequence, count)


def transactional(sequence: int, producer_id: int = PID) -> BatchHeader:
    return batch(sequence, producer_id=producer_id, attributes=TRANSACTIONAL)


def end(producer_id: int = PID, epoch: int = 0) -> BatchHeader:
    return batch(-1, producer_id=producer_id, epoch=epoch, attributes=TRANSACTIONAL | CONTROL)


@pytest.fixture
def state() -> ProducerState:
    return ProducerState(DAY_MS)


def refused(action: Callable[[], object]) -> ErrorCode:
    with pytest.raises(ApiError) as error:
        action()
    return error.value.code


def test_first_batch_of_an_unknown_producer_may_have_any_sequence(state: ProducerState) -> None:
    assert state.check(batch(41)) is None


def test_an_impossible_epoch_is_refused_even_of_an_unknown_producer(state: ProducerState) -> None:
    assert state.check(batch(0, epoch=-1)) is None
    with pytest.raises(ApiError) as caught:
        state.check(batch(0, epoch=-2))
    assert caught.value.code is ErrorCode.INVALID_PRODUCER_EPOCH


def test_batches_in_sequence_are_accepted_and_others_not(state: ProducerState) -> None:
    state.update(batch(0, 3), 100)
    assert state.check(batch(3)) is None
    assert refused(lambda: state.check(batch(4))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(lambda: state.check(batch(1))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert state.map_end_offset == 103


def test_the_last_five_batches_are_answered_again_and_older_ones_refused(state: ProducerState) -> None:
    for index in range(6):
        state.update(batch(2 * index, 2, timestamp=index), 100 + 2 * index)
    for index in range(1, 6):
        repeated = state.check(batch(2 * index, 2))
        assert repeated is not None
        assert (repeated.first_offset, repeated.last_offset, repeated.timestamp) == (
            100 + 2 * index,
            101 + 2 * index,
            index,
        )
    assert refused(lambda: state.check(batch(0, 2))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(lambda: state.check(batch(2, 1))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_sequence_numbers_wrap_to_zero(state: ProducerState) -> None:
    largest = 2**31 - 1
    state.update(batch(largest - 1, 4), 0)
    assert state.producers[PID].last_sequence == 1
    assert state.check(batch(2)) is None
    repeated = state.check(batch(largest - 1, 4))
    assert repeated is not None
    assert repeated.first_offset == 0
    state.clear(0)
    state.update(batch(largest), 0)
    assert state.check(batch(0)) is None


def test_new_epoch_begins_at_zero_and_fences_the_old_one(state: ProducerState) -> None:
    state.update(batch(0, 5), 0)
    assert refused(lambda: state.check(batch(5, epoch=1))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert state.check(batch(0, epoch=1)) is None
    state.update(batch(0, epoch=1), 5)
    assert refused(lambda: state.check(batch(5, epoch=0))) is ErrorCode.INVALID_PRODUCER_EPOCH
    assert state.check(batch(1, epoch=1)) is None
    assert refused(lambda: state.check(batch(0, 5, epoch=1))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_silent_producers_are_forgotten_unless_a_transaction_is_open(state: ProducerState) -> None:
    state.update(batch(0, timestamp=1000), 0)
    state.update(batch(0, producer_id=78, timestamp=1001), 1)
    state.update(transactional(0, producer_id=79), 2)
    state.expire(DAY_MS + 1000)
    assert list(state.producers) == [78, 79]


def test_longest_silent_producers_make_room_at_the_bound(state: ProducerState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_state, "MAX_PRODUCERS", 20)
    for index in range(20):
        state.update(batch(0, producer_id=index, timestamp=1000 - index), index)
    state.update(batch(0, producer_id=99), 20)
    assert len(state.producers) == 19
    assert {18, 19}.isdisjoint(state.producers)


def test_open_transaction_holds_the_stable_offset_until_its_marker_is_replicated(state: ProducerState) -> None:
    state.update(transactional(0), 10)
    state.update(transactional(1), 11)
    assert state.first_unstable_offset() == 10
    assert state.update_marker(end(), COMMIT, 12) is None
    state.high_watermark_moved(12)
    assert state.first_unstable_offset() == 10
    state.high_watermark_moved(13)
    assert state.first_unstable_offset() is None


def test_abort_gives_the_entry_for_the_index_with_the_stable_offset_after_it(state: ProducerState) -> None:
    state.update(transactional(0, producer_id=1), 10)
    state.update(transactional(0, producer_id=2), 11)
    assert state.update_marker(end(producer_id=2), ABORT, 12) == AbortedTxn(2, 11, 12, 10)
    assert state.update_marker(end(producer_id=1), ABORT, 13) == AbortedTxn(1, 10, 13, 14)
    assert state.update_marker(end(producer_id=1), ABORT, 14) is None
    assert state.first_unstable_offset() == 10


def test_batch_outside_the_open_transaction_is_refused(state: ProducerState) -> None:
    state.update(transactional(0), 0)
    assert refused(lambda: state.check(batch(1))) is ErrorCode.INVALID_TXN_STATE
    assert state.check(transactional(1)) is None


def test_markers_of_old_producers_and_old_coordinators_are_refused(state: ProducerState) -> None:
    state.check_marker(end(), COMMIT)
    state.update(batch(0, epoch=3), 0)
    state.update_marker(end(epoch=3), EndMarker(False, 5), 1)
    assert refused(lambda: state.check_marker(end(epoch=2), EndMarker(False, 5))) is ErrorCode.INVALID_PRODUCER_EPOCH
    fenced = refused(lambda: state.check_marker(end(epoch=3), EndMarker(False, 4)))
    assert fenced is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    state.check_marker(end(epoch=4), EndMarker(False, 5))


def test_marker_with_a_new_epoch_forgets_the_sequence(state: ProducerState) -> None:
    state.update(transactional(0), 0)
    state.update_marker(end(epoch=1), ABORT, 1)
    assert state.check(transactional(0)._replace(producer_epoch=1)) is None
    assert refused(lambda: state.check(transactional(1))) is ErrorCode.INVALID_PRODUCER_EPOCH


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (struct.pack(">hh", 0, 0), struct.pack(">hi", 0, 9), EndMarker(True, 9)),
        (struct.pack(">hh", 0, 1), struct.pack(">hi", 0, 3), EndMarker(False, 3)),
        (struct.pack(">hh", 0, 2), struct.pack(">hi", 0, 3), None),
        (b"\0", struct.pack(">hi", 0, 3), None),
        (struct.pack(">hh", 0, 1), b"", None),
    ],
)
def test_control_records_other_than_ends_of_transactions_are_passed_over(
    key: bytes, value: bytes, expected: EndMarker | None
) -> None:
    data = build_batch([NewRecord(0, key, value)], control=True, transactional=True)
    assert parse_marker(memoryview(data)) == expected


def snapshot_bytes(*entries: tuple[int, ...]) -> bytes:
    """A snapshot as Apache Kafka lays it out."""
    body = struct.pack(">i", len(entries)) + b"".join(struct.pack(">qhiqiqiq", *entry) for entry in entries)
    return struct.pack(">hI", 1, crc32.iscsi(body)) + body


def test_snapshot_has_the_last_batch_of_each_producer(state: ProducerState, tmp_path: Path) -> None:
    for index in range(7):
        state.update(batch(3 * index, 3, timestamp=1000 + index), 3 * index)
    state.update(transactional(5, producer_id=78), 30)
    state.update_marker(end(producer_id=79, epoch=2), EndMarker(True, 6), 31)
    write_snapshot(OsFs(), f"{tmp_path}/s", state.producers.values())
    assert (tmp_path / "s").read_bytes() == snapshot_bytes(
        (PID, 0, 20, 20, 2, 1006, -1, -1), (78, 0, 5, 30, 0, 0, -1, 30), (79, 2, -1, -1, 0, 0, 6, -1)
    )


def test_state_goes_on_from_a_snapshot(state: ProducerState, tmp_path: Path) -> None:
    (tmp_path / f"{31:020d}.snapshot").write_bytes(
        snapshot_bytes((PID, 0, 20, 20, 2, 1006, -1, -1), (78, 0, 5, 30, 0, 0, -1, 30), (79, 2, -1, -1, 0, 0, 6, -1))
    )
    snapshots = Snapshots(OsFs(), str(tmp_path), [f"{31:020d}.snapshot", "x.snapshot", "other"])
    assert snapshots.offsets == [31]
    snapshots.load_newest(state, 0, 100)
    assert state.map_end_offset == 31
    assert state.check(batch(21)) is None
    repeated = state.check(batch(18, 3))
    assert repeated is not None
    assert repeated.first_offset == 18
    assert state.first_unstable_offset() == 30
    assert refused(lambda: state.check(batch(1, producer_id=79, epoch=2))) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert state.check(batch(0, producer_id=79, epoch=2)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\1",
        struct.pack(">hIi", 2, 0, 0),
        struct.pack(">hIi", 1, 0, 0),
        snapshot_bytes((1, 0, 0, 0, 0, 0, 0, -1))[:-1],
        struct.pack(">hIi", 1, crc32.iscsi(struct.pack(">i", 5)), 5),
    ],
)
def test_damaged_snapshot_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(CorruptSnapshotError):
        read_snapshot(OsFs(), f"{tmp_path}/s")


def test_newest_usable_snapshot_within_the_log_counts(state: ProducerState, tmp_path: Path) -> None:
    snapshots = Snapshots(OsFs(), str(tmp_path))
    for offset in (5, 10, 20, 30):
        state.update(batch(offset), offset - 1)
        snapshots.take(offset, state)
    (tmp_path / f"{20:020d}.snapshot").write_bytes(b"damaged")
    snapshots.load_newest(state, 5, 25)
    assert (state.map_end_offset, state.producers[PID].last_sequence) == (10, 10)
    assert snapshots.offsets == [5, 10, 30]
    snapshots.load_newest(state, 5, 9)
    assert (state.map_end_offset, state.producers) == (5, {})


def test_snapshots_stay_at_segment_boundaries_and_at_the_end(state: ProducerState, tmp_path: Path) -> None:
    snapshots = Snapshots(OsFs(), str(tmp_path))
    for offset in (5, 10, 20, 30):
        snapshots.take(offset, state)
    snapshots.keep_only([0, 10])
    assert snapshots.offsets == [10, 30]
    snapshots.remove_from(30)
    assert [path.name for path in tmp_path.iterdir()] == [f"{10:020d}.snapshot"]


def test_records_of_a_coordinator_have_no_sequence_and_are_never_repetitions(state: ProducerState) -> None:
    """TxnOffsetCommit writes to __consumer_offsets in a transaction, for a producer that counts only its own writes."""
    for offset in (100, 101):
        assert state.check(transactional(-1)) is None
        state.update(transactional(-1), offset)
    assert state.producers[PID].last_sequence == -1
    assert (
        refused(lambda: state.check(batch(-1, epoch=-1, attributes=TRANSACTIONAL))) is ErrorCode.INVALID_PRODUCER_EPOCH
    )
    state.update_marker(end(epoch=1), COMMIT, 102)
    assert refused(lambda: state.check(transactional(-1))) is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_producer_is_in_a_transaction_from_its_first_record_to_the_marker(state: ProducerState) -> None:
    """Of its present epoch alone: KIP-890 asks the coordinator again otherwise."""
    assert not state.is_in_transaction(PID, 0)
    state.update(transactional(0), 100)
    assert state.is_in_transaction(PID, 0)
    assert not state.is_in_transaction(PID, 1)
    assert not state.is_in_transaction(PID + 1, 0)
    state.update_marker(end(), COMMIT, 101)
    assert not state.is_in_transaction(PID, 0)


@pytest.mark.parametrize("marker", [COMMIT, EndMarker(True, 7)])
def test_a_marker_that_is_written_is_read_back(marker: EndMarker) -> None:
    data = build_batch(
        [producer_state.marker_record(marker, 5)], producer_id=PID, producer_epoch=3, transactional=True, control=True
    )
    assert parse_marker(memoryview(data)) == marker
    assert len(data) == 78  # As Apache Kafka's.
