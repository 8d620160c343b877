"""Moving a log into another data directory, while it is written to (KIP-113)."""

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import NewRecord, build_batch, iter_records, read_header
from kpy.records.validate import ValidBatch
from kpy.storage import mover, moves
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=1000, index_interval_bytes=100)
TOPIC_ID = bytes(range(16))
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
KEY = ("t", 0)
NOW_MS = 1_000_000


def open_dirs(root: Path) -> LogDirs:
    return LogDirs.open(
        [root / "a", root / "b", root / "c"],
        broker_id=1,
        cluster_id=CLUSTER_ID,
        now_ms=NOW_MS,
        config_for=lambda topic: CONFIG,
        rng=random.Random(1),
    )


@pytest.fixture
def dirs(tmp_path: Path) -> LogDirs:
    """Three directories, and t-0 in the first."""
    dirs = open_dirs(tmp_path)
    dirs.create_log(*KEY, TOPIC_ID, CONFIG)
    return dirs


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "SLICE_BYTES", 400)
    monkeypatch.setattr(moves, "LAST_BYTES", 200)


def append(log: Log, value: bytes = b"value", leader_epoch: int = 0, **options: object) -> int:
    data = build_batch([NewRecord(NOW_MS, None, value)], **options)  # type: ignore[arg-type]  # build_batch's own options
    info = log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), leader_epoch, NOW_MS)
    log.high_watermark = log.log_end_offset
    return info.base_offset


def fill(log: Log, count: int) -> list[bytes]:
    start = log.log_end_offset
    expected = [b"%d " % offset + b"x" * 50 for offset in range(start, start + count)]
    for value in expected:
        append(log, value)
    return expected


def values(log: Log) -> list[bytes | None]:
    batches = log.read_batches(log.log_start_offset, log.log_end_offset)
    return [
        record.value
        for header, data in batches
        if not header.is_control
        for record in iter_records(data)
        if record.offset >= log.log_start_offset
    ]


def begin(dirs: LogDirs, target: str) -> None:
    dirs.mover.begin(KEY, dirs.directory_at(str(dirs.directories["abc".index(target)].path)), NOW_MS)


def home(dirs: LogDirs) -> str:
    return dirs.logs[KEY].dir.parent.name


def test_log_moves_with_all_it_has(dirs: LogDirs, tmp_path: Path) -> None:
    log = dirs.logs[KEY]
    expected = fill(log, 30)
    log.start_leader_epoch(5)
    log.advance_log_start_offset(3)
    log.flush()
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    moved = dirs.logs[KEY]
    assert moved is not log
    assert moved.dir == tmp_path / "b" / "t-0"
    assert values(moved) == expected[3:]
    assert (moved.log_start_offset, moved.log_end_offset, moved.high_watermark) == (3, 30, 30)
    assert moved.recovery_point >= log.recovery_point
    assert moved.leader_epochs.entries() == log.leader_epochs.entries()
    assert moved.topic_id == TOPIC_ID
    assert not dirs.mover.moves
    assert append(moved) == 30
    dirs.close()
    dirs = open_dirs(tmp_path)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == [*expected[3:], b"value"]
    dirs.close()


def test_old_directory_goes_when_its_time_has_come(dirs: LogDirs, tmp_path: Path) -> None:
    fill(dirs.logs[KEY], 5)
    region = dirs.logs[KEY].read(0, 1000, 5, True)
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    assert [path.name.endswith("-delete") for path in (tmp_path / "a").glob("t-0*")] == [True]
    dirs.remove_deleted(NOW_MS + CONFIG.file_delete_delay_ms)
    assert not list((tmp_path / "a").glob("t-0*"))
    assert region is not None
    assert len(region.read()) == region.size, "a response that was being sent lost its file"
    dirs.close()


def test_appends_go_on_while_the_log_moves(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    expected = fill(log, 20)
    begin(dirs, "b")
    rounds = 0
    while (job := dirs.mover.job(NOW_MS)) is not None:
        job.run()
        if rounds < 10:
            expected += fill(dirs.logs[KEY], 2)
        job.done()
        rounds += 1
    assert rounds > 10
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == expected
    dirs.close()


def test_copy_is_a_future_directory_until_it_has_caught_up(dirs: LogDirs, tmp_path: Path) -> None:
    log = dirs.logs[KEY]
    fill(log, 30)
    begin(dirs, "b")
    (future,) = (tmp_path / "b").glob("t-0.*-future")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    move = dirs.mover.moves[KEY]
    assert 0 < move.offset_lag < 30
    assert move.copy.log_end_offset == 30 - move.offset_lag
    assert future.exists()
    assert home(dirs) == "a"
    dirs.mover.move_all(NOW_MS)
    assert not future.exists()
    dirs.close()


@pytest.mark.parametrize("clean", [True, False])
def test_interrupted_move_goes_on_where_it_stood(dirs: LogDirs, tmp_path: Path, clean: bool) -> None:
    expected = fill(dirs.logs[KEY], 30)
    begin(dirs, "b")
    for _ in range(3):
        job = dirs.mover.job(NOW_MS)
        assert job is not None
        dirs.carry_out(job)
    copied = dirs.mover.moves[KEY].copy.log_end_offset
    assert copied > 3
    dirs.close(clean)
    dirs = open_dirs(tmp_path)
    assert dirs.mover.moves[KEY].copy.log_end_offset == copied
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == expected
    dirs.close()


def test_copy_of_what_has_been_truncated_since_is_cut_back(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    expected = fill(log, 20)
    begin(dirs, "b")
    for _ in range(3):
        job = dirs.mover.job(NOW_MS)
        assert job is not None
        dirs.carry_out(job)
    assert dirs.mover.moves[KEY].copy.log_end_offset > 5
    log.truncate_to(5)
    log.start_leader_epoch(1)
    assert append(log, b"new", leader_epoch=1) == 5
    dirs.mover.move_all(NOW_MS)
    assert values(dirs.logs[KEY]) == [*expected[:5], b"new"]
    assert dirs.logs[KEY].leader_epochs.entries() == [(0, 0), (1, 5)]
    dirs.close()


def test_copy_that_retention_has_left_behind_begins_anew(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    expected = fill(log, 60)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    log.advance_log_start_offset(50)
    log.delete_old_segments(NOW_MS)
    dirs.mover.move_all(NOW_MS)
    assert dirs.logs[KEY].log_start_offset == 50
    assert values(dirs.logs[KEY]) == expected[50:]
    dirs.close()


def test_log_that_starts_inside_a_batch_moves(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    data = build_batch([NewRecord(NOW_MS, None, b"%d" % value) for value in range(10)])
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = 10
    log.advance_log_start_offset(7)
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    assert dirs.logs[KEY].log_start_offset == 7
    assert values(dirs.logs[KEY]) == [b"7", b"8", b"9"]
    dirs.close()


def test_empty_log_moves(dirs: LogDirs) -> None:
    begin(dirs, "c")
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "c"
    assert append(dirs.logs[KEY]) == 0
    dirs.close()


def test_deleted_records_stay_deleted_after_a_move_and_a_crash(dirs: LogDirs, tmp_path: Path) -> None:
    fill(dirs.logs[KEY], 10)
    dirs.logs[KEY].advance_log_start_offset(4)
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    dirs.close(clean=False)
    dirs = open_dirs(tmp_path)
    assert dirs.logs[KEY].log_start_offset == 4
    dirs.close()


def test_gaps_of_an_earlier_compaction_are_no_damage_after_a_move_and_a_crash(dirs: LogDirs, tmp_path: Path) -> None:
    log = dirs.logs[KEY]
    log.config = replace(CONFIG, cleanup_policy=frozenset({"compact"}))
    for value in range(40):
        data = build_batch([NewRecord(NOW_MS, b"key %d" % (value % 3), b"%d" % value)])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    log.roll()
    dirs.clean(NOW_MS)
    log.config = CONFIG
    fill(log, 3)
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    before = values(dirs.logs[KEY])
    dirs.close(clean=False)
    dirs = open_dirs(tmp_path)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == before
    dirs.close()


def test_copy_has_the_segments_of_the_log(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    fill(log, 30)
    bases = log.segment_base_offsets()
    assert len(bases) > 2
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    assert dirs.logs[KEY].segment_base_offsets() == bases
    dirs.close()


def test_move_waits_for_a_round_of_compaction(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    log.config = replace(CONFIG, cleanup_policy=frozenset({"compact"}))
    for value in range(4):
        data = build_batch([NewRecord(NOW_MS, b"key", b"%d" % value)])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    log.roll()
    round_ = dirs.clean_job(NOW_MS)
    assert round_ is not None
    begin(dirs, "b")
    assert dirs.mover.job(NOW_MS) is None
    dirs.carry_out(round_)
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == [b"3"]
    dirs.close()


def test_idempotent_producers_and_aborted_transactions_move_along(dirs: LogDirs) -> None:
    log = dirs.logs[KEY]
    append(log, producer_id=5, producer_epoch=0, base_sequence=0)
    append(log, producer_id=7, producer_epoch=0, base_sequence=0, transactional=True)
    marker = build_batch(
        [NewRecord(NOW_MS, struct.pack(">hh", 0, 0), struct.pack(">hi", 0, 0))],
        producer_id=7,
        producer_epoch=0,
        transactional=True,
        control=True,
    )
    log.append_as_leader(ValidBatch(read_header(marker), memoryview(marker), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    moved = dirs.logs[KEY]
    assert moved.aborted_transactions(0, 3) == log.aborted_transactions(0, 3) != []
    assert append(moved, producer_id=5, producer_epoch=0, base_sequence=0) == 0, "a repetition was appended again"
    with pytest.raises(ApiError) as refused:
        append(moved, producer_id=5, producer_epoch=0, base_sequence=9)
    assert refused.value.code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    dirs.close()


def test_compacted_log_moves_with_its_gaps_and_its_checkpoint(dirs: LogDirs, tmp_path: Path) -> None:
    log = dirs.logs[KEY]
    log.config = replace(CONFIG, cleanup_policy=frozenset({"compact"}))
    for value in range(40):
        data = build_batch([NewRecord(NOW_MS, b"key %d" % (value % 3), b"%d" % value)])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    log.roll()
    dirs.clean(NOW_MS)
    begin(dirs, "b")
    assert dirs.clean_job(NOW_MS) is None, "a log that moves was compacted"
    dirs.mover.move_all(NOW_MS)
    assert values(dirs.logs[KEY]) == [b"37", b"38", b"39"]
    assert dirs.logs[KEY].log_end_offset == 40
    assert dirs.directories[1].cleaned_up_to(KEY) == 40
    dirs.checkpoint(NOW_MS)
    assert (tmp_path / "b" / "cleaner-offset-checkpoint").read_text() == "0\n1\nt 0 40\n"
    assert (tmp_path / "a" / "cleaner-offset-checkpoint").read_text() == "0\n0\n"
    dirs.close()


def test_move_elsewhere_ends_the_first(dirs: LogDirs, tmp_path: Path) -> None:
    expected = fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    begin(dirs, "c")
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "c"
    assert values(dirs.logs[KEY]) == expected
    assert [path.name.endswith("-delete") for path in (tmp_path / "b").glob("t-0*")] == [True]
    dirs.close()


def test_move_to_where_the_log_is_ends_the_move(dirs: LogDirs, tmp_path: Path) -> None:
    fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    begin(dirs, "a")
    assert not dirs.mover.moves
    assert dirs.mover.job(NOW_MS) is None
    assert [path.name.endswith("-delete") for path in (tmp_path / "b").glob("t-0*")] == [True]
    assert home(dirs) == "a"
    dirs.close()


@pytest.mark.parametrize("is_busy", [False, True])
def test_log_that_is_deleted_takes_its_copy_along(dirs: LogDirs, tmp_path: Path, is_busy: bool) -> None:
    fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    if not is_busy:
        dirs.carry_out(job)
    dirs.delete_log(*KEY, NOW_MS)
    if is_busy:
        dirs.carry_out(job)
    again = dirs.create_log(*KEY, bytes(range(1, 17)), CONFIG)
    fill(again, 3)
    assert dirs.mover.job(NOW_MS) is None
    names = [path.name for name in "abc" for path in (tmp_path / name).glob("t-0*")]
    assert sorted(name.rsplit("-", 1)[1] for name in names) == ["0", "delete", "delete"]
    assert not dirs.offline_paths()
    dirs.close()


def test_failing_target_ends_the_move_and_the_log_stays(dirs: LogDirs, tmp_path: Path) -> None:
    expected = fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    dirs.fail(str(tmp_path / "b"), OSError(5, "Input/output error"))
    assert dirs.mover.job(NOW_MS) is None
    assert values(dirs.logs[KEY]) == expected
    assert append(dirs.logs[KEY]) == 20
    with pytest.raises(ApiError) as refused:
        begin(dirs, "c")
    assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    dirs.close()


def test_failing_source_leaves_the_copy_for_the_next_start(dirs: LogDirs, tmp_path: Path) -> None:
    expected = fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    dirs.fail(str(tmp_path / "a"), OSError(5, "Input/output error"))
    assert dirs.mover.job(NOW_MS) is None
    dirs.close()
    dirs = open_dirs(tmp_path)
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == expected
    dirs.close()


def test_damaged_log_is_not_moved(dirs: LogDirs, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(dirs.logs[KEY], 20)
    path = tmp_path / "a" / "t-0" / f"{0:020d}.log"
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 1
    path.write_bytes(damaged)
    begin(dirs, "b")
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "a"
    assert "t-0 is not moved" in caplog.text
    assert not dirs.mover.moves
    assert not dirs.offline_paths()
    dirs.close()


def test_slices_keep_to_the_limit(dirs: LogDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    mover_ = mover.Mover(dirs, clock=lambda: now[0])
    dirs.mover = mover_
    mover_.quota.bytes_per_second = 250
    fill(dirs.logs[KEY], 40)
    size = dirs.logs[KEY].size_bytes
    begin(dirs, "b")
    while mover_.moves:
        job = mover_.job(NOW_MS)
        if job is not None:
            dirs.carry_out(job)
            assert mover_.quota.exceeded_for_ms(int(now[0] * 1000)) <= 2_000, "a slice is more than a second's worth"
        now[0] += 0.25
    assert home(dirs) == "b"
    assert now[0] >= (size - 2 * 400) / 250
    dirs.close()


def test_future_directories_that_nothing_needs_do_not_stay(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path)
    log = dirs.create_log(*KEY, TOPIC_ID, CONFIG)
    fill(log, 5)
    begin(dirs, "b")
    dirs.close(clean=False)
    (future,) = (tmp_path / "b").glob("*-future")
    # One for a topic of that name that is gone, one for a log that is gone, and one beside its own log.
    other = tmp_path / "c" / f"t-0.{'1' * 32}-future"
    other.mkdir()
    (other / "partition.metadata").write_text("version: 0\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA")
    (tmp_path / "c" / f"u-0.{'2' * 32}-future").mkdir()
    (tmp_path / "a" / f"t-0.{'3' * 32}-future").mkdir()
    dirs = open_dirs(tmp_path)
    assert dirs.mover.moves[KEY].copy.dir == future
    left = [path.name for name in "abc" for path in (tmp_path / name).glob("*-0.*")]
    kinds = sorted((name[0], name.rsplit("-", 1)[1]) for name in left)
    assert kinds == [("t", "delete"), ("t", "future"), ("t", "stray"), ("u", "stray")]
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "b"
    dirs.close()


def test_copy_stays_while_its_log_may_be_in_a_directory_that_is_offline(dirs: LogDirs, tmp_path: Path) -> None:
    expected = fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    dirs.close()
    (tmp_path / "a").rename(tmp_path / "unmounted")
    (tmp_path / "a").touch()
    dirs = open_dirs(tmp_path)
    assert dirs.offline_paths() == [str(tmp_path / "a")]
    assert not dirs.logs
    assert list((tmp_path / "b").glob("*-future"))
    with pytest.raises(ApiError) as refused:
        dirs.create_log(*KEY, TOPIC_ID, CONFIG, is_new=False)
    assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    dirs.close()
    (tmp_path / "a").unlink()
    (tmp_path / "unmounted").rename(tmp_path / "a")
    dirs = open_dirs(tmp_path)
    dirs.mover.move_all(NOW_MS)
    assert home(dirs) == "b"
    assert values(dirs.logs[KEY]) == expected
    dirs.close()


def test_new_log_goes_where_it_was_wanted_and_the_wish_is_forgotten(dirs: LogDirs) -> None:
    for partition in range(3):
        dirs.mover.prefer(("u", partition), dirs.directories[2])
        assert dirs.create_log("u", partition, TOPIC_ID, CONFIG).dir.parent.name == "c"
    assert dirs.mover.preferred(("u", 0)) is None
    assert dirs.create_log("u", 3, TOPIC_ID, CONFIG).dir.parent.name == "b"
    dirs.close()


def test_wishes_for_partitions_to_come_are_bounded(dirs: LogDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "MAX_PREFERRED", 3)
    for partition in range(5):
        dirs.mover.prefer(("u", partition), dirs.directories[2])
    assert [dirs.mover.preferred(("u", partition)) is not None for partition in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    dirs.close()


def test_name_that_leaves_no_room_for_a_copy_is_refused(dirs: LogDirs) -> None:
    path = dirs.directories[1].path
    with pytest.raises(ApiError) as refused:
        dirs.mover.check(("t" * 214, 0), path)
    assert refused.value.code is ErrorCode.INVALID_TOPIC_EXCEPTION
    assert dirs.mover.check(("t" * 213, 0), path) is dirs.directories[1]
    with pytest.raises(ApiError) as unknown:
        dirs.mover.check(KEY, path + "/")
    assert unknown.value.code is ErrorCode.LOG_DIR_NOT_FOUND
    dirs.close()


def test_checkpoints_have_the_copy_too(dirs: LogDirs, tmp_path: Path) -> None:
    fill(dirs.logs[KEY], 20)
    begin(dirs, "b")
    job = dirs.mover.job(NOW_MS)
    assert job is not None
    dirs.carry_out(job)
    dirs.checkpoint(NOW_MS)
    end_offset = dirs.mover.moves[KEY].copy.log_end_offset
    assert (tmp_path / "b" / "replication-offset-checkpoint").read_text() == f"0\n1\nt 0 {end_offset}\n"
    assert (tmp_path / "a" / "replication-offset-checkpoint").read_text() == "0\n1\nt 0 20\n"
    dirs.close()
