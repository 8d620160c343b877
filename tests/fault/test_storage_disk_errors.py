"""A disk that fails, or a process that dies, at every single operation: what was acknowledged is there afterwards."""

import errno
import random
from pathlib import Path

import pytest
from storage_fs import Crash, FailingFs, UnsyncedFs

from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.records.batch import NewRecord, build_batch, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=400, index_interval_bytes=50, retention_bytes=900, file_delete_delay_ms=0)
TOPIC_ID = bytes(range(16))
MANY = 10_000


def open_dirs(root: Path, fs: OsFs) -> LogDirs:
    return LogDirs.open(
        [root],
        broker_id=1,
        cluster_id="AAAAAAAAAAAAAAAAAAAAAA",
        now_ms=0,
        config_for=lambda topic: CONFIG,
        rng=random.Random(1),
        fs=fs,
    )


def append(log: Log, sequence: int) -> bytes:
    """Append one record; returns its value once it is acknowledged."""
    value = b"value %d" % sequence
    data = build_batch([NewRecord(sequence, None, value)], producer_id=3, producer_epoch=0, base_sequence=sequence)
    info = log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), sequence // 10, 0)
    assert info.base_offset == sequence
    log.high_watermark = log.log_end_offset
    return value


class Life:
    """A broker's life that meets every kind of disk work; `acknowledged` is what a producer was told is stored."""

    def __init__(self, root: Path, fs: OsFs) -> None:
        self.root = root
        self.fs = fs
        self.acknowledged = 0

    def live(self) -> None:
        dirs = open_dirs(self.root, self.fs)
        log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
        dirs.create_log("deleted", 0, TOPIC_ID, CONFIG)
        for sequence in range(24):
            append(log, sequence)
            self.acknowledged = sequence + 1
            if sequence % 5 == 4:
                for job in dirs.flush_jobs():
                    dirs.carry_out(job)
            if sequence % 7 == 6:
                dirs.checkpoint(0)
            if sequence == 12:
                dirs.delete_log("deleted", 0, 0)
            if sequence % 10 == 9:
                dirs.retention(1_000_000)
                dirs.remove_deleted(1_000_000)
        dirs.close()


def check_reopened(root: Path, acknowledged: int, surplus: int) -> None:
    """The log goes on from what was acknowledged, or from at most `surplus` records more."""
    dirs = open_dirs(root, UnsyncedFs())
    log = dirs.logs.get(("t", 0))
    if log is None:
        assert acknowledged == 0
        dirs.close()
        return
    assert acknowledged <= log.log_end_offset <= acknowledged + surplus
    found: list[int] = []
    offset = log.log_start_offset
    while (region := log.read(offset, 1000, log.log_end_offset, True)) is not None:
        for header, _ in iter_batches(region.read()):
            found.append(header.base_offset)
            offset = header.last_offset + 1
    assert found == list(range(log.log_start_offset, log.log_end_offset))
    append(log, log.log_end_offset)
    dirs.retention(1_000_000)
    dirs.remove_deleted(1_000_000)
    assert not list(root.glob("*-delete"))
    dirs.close()


def test_life_without_faults_goes_through(tmp_path: Path) -> None:
    fs = FailingFs(MANY)
    life = Life(tmp_path, fs)
    life.live()
    assert life.acknowledged == 24
    assert 100 < fs.operations < MANY
    check_reopened(tmp_path, 24, surplus=0)


def test_crash_at_any_operation_loses_nothing_acknowledged(tmp_path: Path) -> None:
    counted = FailingFs(MANY)
    Life(tmp_path / "count", counted).live()
    for fail_at in range(counted.operations):
        life = Life(tmp_path / str(fail_at), FailingFs(fail_at))
        with pytest.raises(Crash):
            life.live()
        check_reopened(life.root, life.acknowledged, surplus=1)


def outcome(life: Life) -> ErrorCode | None:
    """What a producer is told in the end; None when the broker does not start, or when only upkeep was hit."""
    try:
        life.live()
    except ApiError as answer:
        return answer.code
    except StorageError:
        return None
    return None


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_disk_error_at_any_operation_takes_the_directory_offline_and_loses_nothing_acknowledged(
    tmp_path: Path, error: int
) -> None:
    counted = FailingFs(MANY)
    Life(tmp_path / "count", counted).live()
    refused = 0
    for fail_at in range(counted.operations):
        life = Life(tmp_path / str(fail_at), FailingFs(fail_at, error))
        refused += outcome(life) is ErrorCode.KAFKA_STORAGE_ERROR
        check_reopened(life.root, life.acknowledged, surplus=1)
    assert refused > counted.operations // 2


def test_log_refuses_everything_after_a_disk_error(tmp_path: Path) -> None:
    fs = FailingFs(MANY, errno.EIO)
    dirs = open_dirs(tmp_path, fs)
    log, other = dirs.create_log("t", 0, TOPIC_ID, CONFIG), dirs.create_log("u", 0, TOPIC_ID, CONFIG)
    offline: list[tuple[str, list[tuple[str, int]]]] = []
    dirs.on_offline = lambda path, logs: offline.append((path, logs))
    append(log, 0)
    append(other, 0)
    size = log.size_bytes
    fs.fail_at = fs.operations
    with pytest.raises(ApiError) as refused:
        append(log, 1)
    assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    assert (log.log_end_offset, log.size_bytes) == (1, size)
    assert (tmp_path / "t-0" / f"{0:020d}.log").stat().st_size == size
    assert log.producer_state.producers[3].last_sequence == 0
    assert offline == [(str(tmp_path), [("t", 0), ("u", 0)])]
    assert dirs.offline_paths() == [str(tmp_path)]
    for each in (log, other):
        with pytest.raises(ApiError) as refused:
            append(each, 1)
        assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        with pytest.raises(ApiError) as refused:
            each.read(0, 1000, 1, True)
        assert refused.value.code is ErrorCode.KAFKA_STORAGE_ERROR
    with pytest.raises(ApiError):
        dirs.create_log("v", 0, TOPIC_ID, CONFIG)
    dirs.close()
    assert not (tmp_path / ".kafka_cleanshutdown").exists()


class ShortWritesFs(UnsyncedFs):
    """Writes at most 10 bytes a call, as the kernel may."""

    def pwritev(self, fd, buffers, position):  # type: ignore[no-untyped-def, override]  # a stand-in for os.pwritev
        return super().pwritev(fd, [b"".join(buffers)[:10]], position)


def test_short_writes_are_completed(tmp_path: Path) -> None:
    dirs = open_dirs(tmp_path, ShortWritesFs())
    log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    for sequence in range(12):
        append(log, sequence)
    dirs.close()
    check_reopened(tmp_path, 12, surplus=0)
