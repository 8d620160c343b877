"""One partition's log: what appends write, what reads find, and when segments come and go."""

import gc
import os
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import Codec, NewRecord, build_batch, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.storage import segment as segment_module
from kpy.storage.log import AppendInfo, Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig()
TOPIC_ID = bytes(range(16))
NOW_MS = 1_000_000


def open_dirs(root: Path, config: LogConfig = CONFIG) -> LogDirs:
    return LogDirs.open(
        [root], broker_id=1, cluster_id=None, now_ms=NOW_MS, config_for=lambda topic: config, rng=random.Random(1)
    )


@pytest.fixture
def dirs(tmp_path: Path) -> LogDirs:
    return open_dirs(tmp_path)


@pytest.fixture
def log(dirs: LogDirs) -> Log:
    return dirs.create_log("t", 0, TOPIC_ID, CONFIG)


def valid(data: bytes | bytearray | memoryview, log_append_time_ms: int = -1) -> ValidBatch:
    return ValidBatch(read_header(data), memoryview(data), log_append_time_ms)


def batch(*timestamps: int, size: int = 10, **options: object) -> bytes:
    records = [NewRecord(timestamp, None, bytes(size)) for timestamp in timestamps]
    return build_batch(records, **options)  # type: ignore[arg-type]  # the options are build_batch's own


def append(log: Log, *timestamps: int, size: int = 10, epoch: int = 0, **options: object) -> AppendInfo:
    info = log.append_as_leader(valid(batch(*timestamps, size=size, **options)), epoch, NOW_MS)
    log.high_watermark = log.log_end_offset
    return info


def read(log: Log, offset: int, max_bytes: int = 1 << 20, max_offset: int | None = None, one: bool = True) -> list[int]:
    """The base offsets of the batches that a read gives."""
    region = log.read(offset, max_bytes, log.log_end_offset if max_offset is None else max_offset, one)
    return [] if region is None else [header.base_offset for header, _ in iter_batches(region.read())]


def log_file(log: Log, base_offset: int = 0) -> bytes:
    return (log.dir / f"{base_offset:020d}.log").read_bytes()


def code_of(error: pytest.ExceptionInfo[ApiError]) -> ErrorCode:
    return error.value.code


# Appending.


def test_append_stamps_offset_and_leader_epoch_and_nothing_else(log: Log) -> None:
    first, second = batch(1, 2), batch(3)
    assert log.append_as_leader(valid(first), 4, NOW_MS) == AppendInfo(0, 1, -1, 0, False)
    assert log.append_as_leader(valid(second), 5, NOW_MS) == AppendInfo(2, 2, -1, 0, False)
    stamped = [
        struct.pack(">qii", 0, len(first) - 12, 4) + first[16:],
        struct.pack(">qii", 2, len(second) - 12, 5) + second[16:],
    ]
    assert log_file(log) == b"".join(stamped)
    assert log.leader_epochs.entries() == [(4, 0), (5, 2)]
    assert (log.log_end_offset, log.size_bytes) == (3, len(first) + len(second))


def test_append_keeps_no_reference_to_the_receive_buffer(log: Log) -> None:
    buffer = bytearray(batch(1, producer_id=5, producer_epoch=0, base_sequence=0))
    before = bytes(buffer)
    log.append_as_leader(valid(buffer), 0, NOW_MS)
    gc.collect()
    buffer.clear()
    assert log_file(log)[16:] == before[16:]


def test_log_append_time_is_answered(log: Log) -> None:
    info = log.append_as_leader(valid(batch(7), log_append_time_ms=NOW_MS), 0, NOW_MS)
    assert info.log_append_time_ms == NOW_MS


def test_repeated_batch_is_answered_with_its_old_offsets_and_not_written(log: Log) -> None:
    idempotent = {"producer_id": 9, "producer_epoch": 0}
    append(log, 1)
    first = append(log, 5, 6, base_sequence=0, **idempotent)
    append(log, 7, base_sequence=2, **idempotent)
    size = log.size_bytes
    repeated = append(log, 5, 6, base_sequence=0, **idempotent)
    assert repeated == AppendInfo(first.base_offset, first.last_offset, 6, 0, True)
    assert (log.log_end_offset, log.size_bytes) == (4, size)


def test_sequence_gap_is_refused_and_not_written(log: Log) -> None:
    append(log, 1, base_sequence=0, producer_id=9, producer_epoch=0)
    size = log.size_bytes
    with pytest.raises(ApiError) as error:
        append(log, 1, base_sequence=2, producer_id=9, producer_epoch=0)
    assert code_of(error) is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert (log.log_end_offset, log.size_bytes) == (1, size)


def test_follower_writes_the_leaders_bytes_as_they_are(tmp_path: Path, dirs: LogDirs, log: Log) -> None:
    append(log, 1, 2, epoch=3, base_sequence=0, producer_id=9, producer_epoch=0)
    append(log, 3, epoch=5)
    follower = dirs.create_log("follower", 0, TOPIC_ID, CONFIG)
    follower.append_as_follower(memoryview(log_file(log)), NOW_MS)
    assert log_file(follower) == log_file(log)
    assert follower.log_end_offset == 3
    assert follower.leader_epochs.entries() == [(3, 0), (5, 2)]
    assert follower.producer_state.producers[9].last_sequence == 1
    with pytest.raises(ApiError) as error:
        follower.append_as_follower(memoryview(log_file(log)), NOW_MS)
    assert code_of(error) is ErrorCode.OFFSET_OUT_OF_RANGE


def test_index_gets_an_entry_once_more_than_the_interval_has_been_written(dirs: LogDirs) -> None:
    """The entry is (last offset of the append, where it starts), as Apache Kafka's LogSegment.append adds it."""
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, index_interval_bytes=200))
    size = len(batch(1, 1, size=10))
    for timestamp in range(8):
        append(log, timestamp, timestamp, size=10)
    every = 200 // size + 1
    dirs.close()
    entries = list(struct.iter_unpack(">ii", (log.dir / f"{0:020d}.index").read_bytes()))
    assert entries == [(2 * index + 1, index * size) for index in range(every, 8, every)]
    times = list(struct.iter_unpack(">qi", (log.dir / f"{0:020d}.timeindex").read_bytes()))
    expected = [(index, 2 * index + 1) for index in range(every, 8, every)]
    assert times == [*expected, (7, 15)]


# Rolling.


def test_segment_rolls_when_a_batch_would_exceed_segment_bytes(dirs: LogDirs) -> None:
    size = len(batch(1))
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, segment_bytes=2 * size))
    for _ in range(5):
        append(log, 1)
    assert log.segment_base_offsets() == [0, 2, 4]
    assert sorted(path.name for path in log.dir.glob("*.snapshot")) == [f"{2:020d}.snapshot", f"{4:020d}.snapshot"]


def test_segment_rolls_by_the_time_of_its_records(dirs: LogDirs) -> None:
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, segment_ms=100))
    append(log, 1000)
    append(log, 1100)
    append(log, 500)
    append(log, 1101)
    assert log.segment_base_offsets() == [0, 3]


def test_segment_of_records_without_time_rolls_by_the_clock(dirs: LogDirs) -> None:
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, segment_ms=100))
    for now_ms in (NOW_MS, NOW_MS + 50, NOW_MS + 151, NOW_MS + 152):
        log.append_as_leader(valid(batch(-1)), 0, now_ms)
    assert log.segment_base_offsets() == [0, 2]


def test_segment_rolls_when_its_index_is_full(dirs: LogDirs) -> None:
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, index_interval_bytes=0, segment_index_bytes=24))
    for timestamp in range(10):
        append(log, timestamp)
    assert len(log.segment_base_offsets()) > 2
    assert all(segment.offset_index.count <= 3 for segment in log.segments())


def test_segment_rolls_before_an_offset_that_its_index_cannot_express(log: Log) -> None:
    data = bytearray(batch(1))
    for base_offset in (0, 2**31 - 1, 2**31):
        data[:8] = struct.pack(">q", base_offset)
        log.append_as_follower(memoryview(bytes(data)), NOW_MS)
    assert log.segment_base_offsets() == [0, 2**31]
    assert read(log, 5) == [2**31 - 1]
    assert read(log, 2**31) == [2**31]


def test_jitter_rolls_earlier_but_never_at_once(dirs: LogDirs) -> None:
    config = replace(CONFIG, segment_ms=1000, segment_jitter_ms=500)
    logs = [dirs.create_log("t", partition, TOPIC_ID, config) for partition in range(20)]
    for log in logs:
        for timestamp in range(0, 1001, 10):
            append(log, timestamp)
    rolled = [log.segment_base_offsets()[1] for log in logs if len(log.segment_base_offsets()) > 1]
    assert len(set(rolled)) > 5
    assert min(rolled) >= 50


def test_rolling_an_empty_segment_changes_nothing(log: Log) -> None:
    log.roll()
    assert log.segment_base_offsets() == [0]
    append(log, 1)
    log.roll()
    log.roll()
    assert log.segment_base_offsets() == [0, 1]


# Reading.


def test_offset_inside_a_batch_gives_the_whole_batch(log: Log) -> None:
    append(log, 1)
    append(log, 1, 1, 1)
    append(log, 1)
    assert read(log, 2) == [1, 4]


def test_end_and_bound_give_nothing_and_beyond_is_out_of_range(log: Log) -> None:
    append(log, 1)
    append(log, 1)
    assert read(log, 2) == []
    assert read(log, 1, max_offset=1) == []
    assert read(log, 0, max_offset=1) == [0]
    for offset in (-1, 3):
        with pytest.raises(ApiError) as error:
            read(log, offset)
        assert code_of(error) is ErrorCode.OFFSET_OUT_OF_RANGE


def test_bound_is_exact_and_leaves_out_a_batch_that_straddles_it(log: Log) -> None:
    for _ in range(3):
        append(log, 1, 1)
    assert read(log, 0, max_offset=4) == [0, 2]
    assert read(log, 0, max_offset=3) == [0]
    assert read(log, 0, max_offset=100) == [0, 2, 4]


def test_whole_batches_up_to_max_bytes_and_the_first_in_any_case(log: Log) -> None:
    size = len(batch(1))
    for _ in range(5):
        append(log, 1)
    assert read(log, 1, max_bytes=2 * size) == [1, 2]
    assert read(log, 1, max_bytes=3 * size - 1) == [1, 2]
    assert read(log, 1, max_bytes=1) == [1]
    assert read(log, 1, max_bytes=size - 1, one=False) == []
    assert read(log, 1, max_bytes=0, one=False) == []


def test_read_ends_at_the_end_of_a_segment_and_goes_on_in_the_next(log: Log) -> None:
    append(log, 1)
    log.roll()
    append(log, 1)
    assert read(log, 0) == [0]
    assert read(log, 1) == [1]


def test_sequential_reader_needs_no_search(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(50):
        append(log, 1)
    assert read(log, 30) == list(range(30, 50))

    def search(*args: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(segment_module, "scan_headers", search)
    for offset in range(50, 60):
        append(log, 1)
        assert read(log, offset) == [offset]


def test_remembered_positions_are_bounded(log: Log) -> None:
    for _ in range(200):
        append(log, 1)
    for offset in range(200):
        assert read(log, offset, max_bytes=1) == [offset]
    assert len(log.segments()[0].positions) <= segment_module.MAX_REMEMBERED_POSITIONS


def test_region_stays_readable_after_its_segment_is_deleted(log: Log) -> None:
    append(log, 1)
    log.roll()
    append(log, 1)
    region = log.read(0, 1000, 1, True)
    assert region is not None
    log.advance_log_start_offset(1)
    assert log.delete_old_segments(NOW_MS)
    for path in log.take_due_files(NOW_MS + CONFIG.file_delete_delay_ms):
        Path(path).unlink()
    assert not (log.dir / f"{0:020d}.log").exists()
    assert [header.base_offset for header, _ in iter_batches(region.read())] == [0]
    assert os.fstat(region.file.fileno()).st_nlink == 0


def test_damaged_batch_is_reported_and_does_not_take_the_disk_offline(log: Log) -> None:
    append(log, 1)
    append(log, 1)
    with (log.dir / f"{0:020d}.log").open("r+b") as file:
        file.write(bytes(40))
    with pytest.raises(ApiError) as error:
        read(log, 0, max_bytes=1)
    assert code_of(error) is ErrorCode.CORRUPT_MESSAGE
    assert not log.is_offline


def test_replay_gives_the_batches_in_a_range(log: Log) -> None:
    for index in range(6):
        append(log, 1, 1)
        if index % 2:
            log.roll()
    assert [header.base_offset for header, _ in log.read_batches(3, 9)] == [2, 4, 6, 8]
    assert list(log.read_batches(12, 12)) == []


# Time.


@pytest.mark.parametrize("codec", list(Codec))
def test_lookup_by_time_finds_the_record_inside_its_batch(log: Log, codec: Codec) -> None:
    append(log, 100, 300, 200, epoch=2, codec=codec)
    append(log, 250, 400, epoch=3, codec=codec)
    found = {timestamp: log.offset_for_timestamp(timestamp) for timestamp in (0, 101, 301, 400, 401)}
    assert found == {0: (100, 0, 2), 101: (300, 1, 2), 301: (400, 4, 3), 400: (400, 4, 3), 401: None}
    assert log.max_timestamp() == (400, 4, 3)


def test_lookup_by_time_leaves_out_deleted_records(log: Log) -> None:
    append(log, 100, 200)
    append(log, 150)
    log.advance_log_start_offset(2)
    assert log.offset_for_timestamp(0) == (150, 2, 0)
    assert log.offset_for_timestamp(160) is None


def test_log_without_timestamps_has_no_largest_one(log: Log) -> None:
    assert log.max_timestamp() is None
    append(log, -1)
    assert log.max_timestamp() is None


# The start, the end, and what is deleted.


def test_log_start_moves_up_to_the_high_watermark(log: Log) -> None:
    for _ in range(4):
        append(log, 1)
    log.high_watermark = 2
    with pytest.raises(ApiError) as error:
        log.advance_log_start_offset(3)
    assert code_of(error) is ErrorCode.OFFSET_OUT_OF_RANGE
    log.advance_log_start_offset(2)
    log.advance_log_start_offset(1)
    assert log.log_start_offset == 2
    with pytest.raises(ApiError):
        read(log, 1)


def test_high_watermark_stays_within_the_log(log: Log) -> None:
    for _ in range(4):
        append(log, 1)
    log.high_watermark = 100
    assert log.high_watermark == 4
    log.advance_log_start_offset(2)
    log.high_watermark = 0
    assert log.high_watermark == 2


def test_deleted_segments_are_renamed_first_and_removed_after_the_delay(log: Log) -> None:
    append(log, 1)
    log.roll()
    append(log, NOW_MS)
    log.config = replace(CONFIG, retention_ms=1000, file_delete_delay_ms=50)
    paths = log.delete_old_segments(NOW_MS)
    assert sorted(Path(path).name for path in paths) == [
        f"{0:020d}{kind}.deleted" for kind in (".index", ".log", ".timeindex")
    ]
    assert all(Path(path).exists() for path in paths)
    assert (log.log_start_offset, log.segment_base_offsets()) == (1, [1])
    assert log.delete_old_segments(NOW_MS) == []
    assert log.take_due_files(NOW_MS + 49) == []
    assert all(Path(path).exists() for path in paths)
    assert log.take_due_files(NOW_MS + 50) == paths
    assert log.take_due_files(NOW_MS + 51) == []


def test_active_segment_that_is_old_is_rolled_and_deleted(log: Log) -> None:
    append(log, 1)
    log.config = replace(CONFIG, retention_ms=1000)
    log.delete_old_segments(NOW_MS)
    assert (log.log_start_offset, log.log_end_offset, log.segment_base_offsets()) == (1, 1, [1])
    assert append(log, NOW_MS).base_offset == 1


def test_truncation_restores_offsets_epochs_producers_and_size(log: Log) -> None:
    idempotent = {"producer_id": 9, "producer_epoch": 0}
    append(log, 1, 1, epoch=1, base_sequence=0, **idempotent)
    log.roll()
    size = log.size_bytes
    append(log, 1, epoch=2, base_sequence=2, **idempotent)
    log.roll()
    append(log, 1, epoch=3, base_sequence=3, **idempotent)
    log.truncate_to(2)
    assert (log.log_end_offset, log.size_bytes, log.high_watermark) == (2, size, 2)
    assert log.leader_epochs.entries() == [(1, 0)]
    assert log.producer_state.producers[9].last_sequence == 1
    assert append(log, 1, epoch=4, base_sequence=2, **idempotent).base_offset == 2
    log.truncate_to(50)
    assert log.log_end_offset == 3


def test_truncation_inside_a_batch_drops_the_batch(log: Log) -> None:
    append(log, 1)
    append(log, 1, 1, 1)
    log.truncate_to(2)
    assert log.log_end_offset == 1


def test_truncation_below_the_first_segment_starts_anew(log: Log) -> None:
    append(log, 1)
    log.truncate_fully_and_start_at(100)
    append(log, 1)
    log.truncate_to(40)
    assert (log.log_start_offset, log.log_end_offset, log.segment_base_offsets()) == (40, 40, [40])
    assert append(log, 1).base_offset == 40


def test_truncation_at_the_end_forgets_an_epoch_in_which_nothing_was_written(log: Log) -> None:
    """UnifiedLog.truncateTo: or the leader would find the logs diverging again and again (KIP-595)."""
    append(log, 1, epoch=1)
    log.start_leader_epoch(2)
    log.truncate_to(1)
    assert log.leader_epochs.entries() == [(1, 0)]
    assert log.log_end_offset == 1


# Transactions.


def marker(producer_id: int, abort: bool) -> bytes:
    records = [NewRecord(1, struct.pack(">hh", 0, 0 if abort else 1), struct.pack(">hi", 0, 0))]
    return build_batch(records, producer_id=producer_id, producer_epoch=0, transactional=True, control=True)


def test_stable_offset_waits_for_markers_and_aborts_are_indexed(log: Log) -> None:
    begin = {"producer_epoch": 0, "transactional": True}
    append(log, 1)
    append(log, 1, base_sequence=0, producer_id=1, **begin)
    append(log, 1, base_sequence=0, producer_id=2, **begin)
    assert log.last_stable_offset == 1
    log.append_as_leader(valid(marker(1, abort=True)), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    assert log.last_stable_offset == 2
    log.append_as_leader(valid(marker(2, abort=False)), 0, NOW_MS)
    assert log.last_stable_offset == 2
    log.high_watermark = log.log_end_offset
    assert log.last_stable_offset == 5
    assert [tuple(txn) for txn in log.aborted_transactions(0, 5)] == [(1, 1, 3, 2)]
    assert log.aborted_transactions(4, 5) == []


def test_transactions_survive_any_restart(tmp_path: Path) -> None:
    for clean in (True, False):
        root = tmp_path / str(clean)
        dirs = open_dirs(root)
        log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
        begin = {"producer_epoch": 0, "transactional": True}
        append(log, 1, base_sequence=0, producer_id=1, **begin)
        log.append_as_leader(valid(marker(1, abort=True)), 0, NOW_MS)
        append(log, 1, base_sequence=0, producer_id=2, **begin)
        dirs.close(clean)
        dirs = open_dirs(root)
        log = dirs.logs["t", 0]
        log.high_watermark = 3
        assert log.last_stable_offset == 2
        assert [tuple(txn) for txn in log.aborted_transactions(0, 3)] == [(1, 0, 1, 2)]
        dirs.close()


# Durability.


def test_flush_job_covers_what_is_not_durable_and_moves_the_recovery_point(log: Log) -> None:
    append(log, 1)
    assert log.flush_job(include_active=False) is None
    log.roll()
    append(log, 1)
    job = log.flush_job(include_active=False)
    assert job is not None
    assert ([segment.base_offset for segment in job.segments], job.end_offset) == ([0], 1)
    job.run()
    assert log.recovery_point == 0
    log.flushed(job)
    assert log.recovery_point == 1
    log.flush()
    assert log.recovery_point == 2
    assert log.flush_job(include_active=True) is None


def test_flush_of_a_log_deleted_meanwhile_is_no_disk_error(dirs: LogDirs, log: Log) -> None:
    append(log, 1)
    job = log.flush_job(include_active=True)
    assert job is not None
    dirs.delete_log("t", 0, 0)
    job.run()
    assert dirs.offline_paths() == []


@pytest.mark.parametrize("flush_messages", [1, 3])
def test_a_log_must_be_flushed_when_flush_messages_records_are_not_durable(dirs: LogDirs, flush_messages: int) -> None:
    log = dirs.create_log("t", 0, TOPIC_ID, replace(CONFIG, flush_messages=flush_messages))
    for _ in range(2):
        for _ in range(flush_messages):
            assert not log.must_flush
            append(log, 1)
        assert log.must_flush
        log.flush()
    assert not log.must_flush


def test_idle_descriptors_are_closed(log: Log) -> None:
    append(log, 1)
    log.roll()
    append(log, 1)
    assert read(log, 0) == [0]
    log.drop_idle_files()
    log.drop_idle_files()
    open_files = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_is_open(fd)}
    assert not [path for path in open_files if path.startswith(str(log.dir))]
    assert read(log, 0) == [0]
    assert append(log, 1).base_offset == 2


def fd_is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
