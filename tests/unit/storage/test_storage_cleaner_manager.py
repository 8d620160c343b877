"""The cleaner's bounds: how fast it works, with how much memory, and what it does with a log that it cannot clean."""

import logging
import random
from dataclasses import replace
from pathlib import Path

import pytest

from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage import cleaner
from kpy.storage.cleaner_manager import CleanerConfig, CleanerManager
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.storage.throttle import Throttle

CONFIG = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    segment_bytes=2000,
    index_interval_bytes=100,
    min_cleanable_dirty_ratio=0.0,
    file_delete_delay_ms=0,
)
NOW_MS = 1_000_000


@pytest.fixture
def dirs(tmp_path: Path) -> LogDirs:
    return LogDirs.open(
        [tmp_path],
        broker_id=1,
        cluster_id=None,
        now_ms=NOW_MS,
        config_for=lambda topic: CONFIG,
        rng=random.Random(1),
    )


def fill(dirs: LogDirs, topic: str, keys: int, rounds: int = 2) -> Log:
    log = dirs.create_log(topic, 0, bytes(range(16)), CONFIG)
    for _ in range(rounds):
        for key in range(keys):
            data = build_batch([NewRecord(NOW_MS, b"key %d" % key, b"x" * 50)])
            log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    log.roll()
    return log


def records(log: Log) -> int:
    return sum(header.records_count for header, _ in log.read_batches(0, log.log_end_offset))


def test_reads_and_writes_keep_to_the_limit(dirs: LogDirs) -> None:
    now, pauses = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    dirs.cleaner = CleanerManager(dirs.fs, dirs.fail, clock=lambda: now[0], sleep=sleep)
    dirs.cleaner.configure(CleanerConfig(io_max_bytes_per_second=1000.0))
    log = fill(dirs, "t", 50)
    size = log.size_bytes
    dirs.clean(NOW_MS)
    # It is read twice, for the map and for the copies, and half of it is written.
    assert now[0] == pytest.approx(size * 2.5 / 1000.0, rel=0.1)
    assert max(pauses) <= 0.1, "a broker that stops would wait for it"


def test_limit_is_altered_during_a_round(dirs: LogDirs) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        dirs.cleaner.configure(CleanerConfig())

    dirs.cleaner = CleanerManager(dirs.fs, dirs.fail, clock=lambda: now[0], sleep=sleep)
    dirs.cleaner.configure(CleanerConfig(io_max_bytes_per_second=1000.0))
    fill(dirs, "t", 50)
    dirs.clean(NOW_MS)
    assert now[0] < 1.0


def test_round_ends_when_the_broker_stops(dirs: LogDirs) -> None:
    class Stopped(BaseException):
        pass

    def check() -> None:
        raise Stopped

    log = fill(dirs, "t", 10)
    dirs.cleaner.check_cancelled = check
    job = dirs.clean_job(NOW_MS)
    assert job is not None
    with pytest.raises(Stopped):
        job.run()
    assert records(log) == 20


def test_unused_time_is_not_saved_up() -> None:
    now = [0.0]
    throttle = Throttle(100.0, lambda: now[0])
    assert throttle.delay_s(50) == pytest.approx(0.5)
    assert throttle.delay_s(50) == pytest.approx(1.0)
    now[0] = 1000.0
    assert throttle.delay_s(50) == pytest.approx(0.5)


def test_more_keys_than_the_buffer_holds_take_several_rounds(dirs: LogDirs) -> None:
    dirs.cleaner.configure(CleanerConfig(dedupe_buffer_bytes=500))
    log = fill(dirs, "t", 100)
    rounds = 0
    while (job := dirs.clean_job(NOW_MS)) is not None:
        dirs.carry_out(job)
        rounds += 1
    assert rounds >= 5
    assert records(log) == 100


def test_round_is_reported_in_one_line(dirs: LogDirs, caplog: pytest.LogCaptureFixture) -> None:
    fill(dirs, "t", 50)
    with caplog.at_level(logging.INFO, "kpy.storage"):
        dirs.clean(NOW_MS)
    (line,) = [record.getMessage() for record in caplog.records if "compacted" in record.getMessage()]
    assert line.startswith("compacted t-0 up to 100, dirty from 0: ")
    assert "in 100 records became" in line
    assert "in 50," in line
    assert "MB/s" in line


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), OSError(5, "Input/output error")])
def test_failed_partition_is_set_aside_and_the_others_go_on(
    dirs: LogDirs, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    fill(dirs, "t", 20)
    other = fill(dirs, "u", 10)
    run = cleaner.CleanTask.run

    def fails(task: cleaner.CleanTask) -> cleaner.CleanResult:
        if task.directory.endswith("t-0"):
            raise fault
        return run(task)

    monkeypatch.setattr(cleaner.CleanTask, "run", fails)
    if isinstance(fault, RuntimeError):
        with pytest.raises(RuntimeError):
            dirs.clean(NOW_MS)
        dirs.clean(NOW_MS)
        assert records(other) == 10
        assert dirs.cleaner.uncleanable == {("t", 0)}
        assert not dirs.cleaner.being_compacted, "retention would pass the log by"
    else:
        dirs.clean(NOW_MS)
        assert dirs.offline_paths(), "a failing disk is no matter of one log"


def test_damaged_partition_is_set_aside_until_the_next_start(
    dirs: LogDirs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, other = fill(dirs, "t", 20), fill(dirs, "u", 10)
    path = tmp_path / "t-0" / f"{0:020d}.log"
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    path.write_bytes(damaged)
    dirs.clean(NOW_MS)
    assert dirs.cleaner.uncleanable == {("t", 0)}
    assert "t-0 could not be compacted" in caplog.text
    assert records(other) == 10
    assert dirs.clean_job(NOW_MS) is None
    log.config = replace(CONFIG, cleanup_policy=frozenset({"delete"}), retention_ms=0)
    dirs.retention(NOW_MS + 1)
    assert log.log_start_offset == 40, "retention goes on"
    dirs.delete_log("t", 0, NOW_MS)
    assert not dirs.cleaner.uncleanable
    dirs.close()


def test_log_that_is_not_to_be_compacted_any_more_keeps_its_records(dirs: LogDirs, tmp_path: Path) -> None:
    log = fill(dirs, "t", 20)
    job = dirs.clean_job(NOW_MS)
    assert job is not None
    job.run()
    log.config = replace(CONFIG, cleanup_policy=frozenset({"delete"}))
    job.done()
    assert records(log) == 40
    assert not list(tmp_path.glob("t-0/*.cleaned"))
    dirs.close()
