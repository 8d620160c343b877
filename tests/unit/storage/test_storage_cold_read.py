"""Reads that would wait for the disk: they are found out, a job reads all they touch, and warm ones cost no job."""

import ctypes
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage import page_cache
from kpy.storage.cold_read import cold_read, cold_region
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

PAGE = 4096
Holds = Callable[[int, int, int], bool]
CONFIG = LogConfig(segment_bytes=600_000, index_interval_bytes=4096)
RECORD_BYTES = 10_000


class CountingFs(OsFs):
    """Knows pages by name, as a page cache does: cold until a read has brought them in. Counts cold reads by thread."""

    def __init__(self) -> None:
        self.cached: set[tuple[str, int]] = set()
        self.all_is_cached = True
        self.cold_reads: list[tuple[str, bool]] = []
        self.probes = 0

    def drop_caches(self) -> None:
        self.cached.clear()
        self.all_is_cached = False

    def _pages(self, fd: int, position: int, size: int) -> set[tuple[str, int]]:
        name = os.readlink(f"/proc/self/fd/{fd}")
        size = min(size, os.fstat(fd).st_size - position)
        return {(name, page) for page in range(position // PAGE, (position + size - 1) // PAGE + 1)} if size else set()

    def is_cached(self, fd: int, position: int, size: int) -> bool:  # type: ignore[override]  # OsFs binds a function
        self.probes += 1
        return self.all_is_cached or self._pages(fd, position, size) <= self.cached

    def pread(self, fd: int, size: int, position: int) -> bytes:  # type: ignore[override]  # OsFs binds os.pread
        missing = self._pages(fd, position, size) - self.cached
        if missing and not self.all_is_cached:
            in_worker = threading.current_thread() is not threading.main_thread()
            self.cold_reads += [(name, in_worker) for name, _ in missing]
            self.cached |= missing
        return os.pread(fd, size, position)


@pytest.fixture
def fs() -> CountingFs:
    return CountingFs()


@pytest.fixture
def log(tmp_path: Path, fs: CountingFs) -> Iterator[Log]:
    """Three segments: two full ones of 58 batches each, and the active one."""
    dirs = LogDirs.open(
        [tmp_path],
        broker_id=1,
        cluster_id=None,
        now_ms=0,
        config_for=lambda topic: CONFIG,
        rng=random.Random(1),
        fs=fs,
    )
    log = dirs.create_log("t", 0, bytes(16), CONFIG)
    append(log, 150)
    assert len(log.segments()) == 3
    yield log
    dirs.close(clean=False)


def append(log: Log, count: int, size: int = RECORD_BYTES) -> None:
    for _ in range(count):
        data = build_batch([NewRecord(log.log_end_offset, None, bytes(size))])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)


def fetch(log: Log, fs: CountingFs, offset: int, max_bytes: int = 50_000) -> tuple[int, int]:
    """Reads as a Fetch does; how many records came, and how many jobs a thread was given."""
    jobs = 0
    cold = cold_read(log, offset, max_bytes, log.log_end_offset)
    if cold is not None:
        jobs += 1
        thread = threading.Thread(target=cold.run)
        thread.start()
        thread.join()
    region = log.read(offset, max_bytes, log.log_end_offset, True)
    if region is None:
        return 0, jobs
    assert fs.is_cached(region.file.fileno(), region.position, region.size)
    return -(-region.size // (RECORD_BYTES + 80)), jobs


def test_a_catch_up_reader_never_makes_the_owner_of_the_log_wait_for_the_disk(log: Log, fs: CountingFs) -> None:
    for segment in log.segments():
        segment.open_file = None
    fs.drop_caches()
    offset = jobs = 0
    while offset < log.log_end_offset:
        count, new_jobs = fetch(log, fs, offset)
        assert count
        offset += count
        jobs += new_jobs
    assert jobs
    assert {name.rsplit(".")[-1] for name, _ in fs.cold_reads} >= {"log", "index"}
    assert all(in_worker for _, in_worker in fs.cold_reads)
    fs.cold_reads.clear()
    assert fetch(log, fs, 0)[1] == 0, "the second reader finds all of it in the page cache"


@pytest.mark.parametrize("offset", [3, 58, 90, 149])
def test_a_reader_that_begins_anywhere_makes_nobody_wait(log: Log, fs: CountingFs, offset: int) -> None:
    fs.drop_caches()
    assert fetch(log, fs, offset)[0] > 0
    assert fs.cold_reads
    assert all(in_worker for _, in_worker in fs.cold_reads)


def test_an_open_log_that_lost_its_cache_is_noticed_in_the_middle(log: Log, fs: CountingFs) -> None:
    count, _ = fetch(log, fs, 0)
    assert fetch(log, fs, count)[1] == 0
    fs.drop_caches()
    assert fetch(log, fs, count)[1] == 1
    assert all(in_worker for _, in_worker in fs.cold_reads)


def test_offsets_that_compaction_has_emptied_lead_to_the_next_segment(log: Log, fs: CountingFs) -> None:
    first, second = log.segments()[:2]
    first.truncate_to(50)
    first.become_inactive()
    fs.drop_caches()
    assert fetch(log, fs, 55)[0] > 0
    assert all(in_worker for _, in_worker in fs.cold_reads)
    assert second.open_file is not None


def test_a_batch_larger_than_asked_for_is_read_in_as_a_whole(log: Log, fs: CountingFs) -> None:
    append(log, 1, size=200_000)
    offset = log.log_end_offset - 1
    fs.drop_caches()
    assert fetch(log, fs, offset, max_bytes=100)[0] > 1
    assert all(in_worker for _, in_worker in fs.cold_reads)
    region = log.read(offset, 100, log.log_end_offset, True)
    assert region is not None
    assert cold_region(log, region) is None
    fs.drop_caches()
    cold = cold_region(log, region)
    assert cold is not None
    cold.run()
    assert cold_region(log, region) is None


def test_a_reader_at_the_end_asks_the_kernel_nothing(log: Log, fs: CountingFs) -> None:
    append(log, 1)
    end = log.log_end_offset
    assert fetch(log, fs, end - 1)[0] == 1
    fs.probes = 0
    assert cold_read(log, end, 50_000, end) is None
    append(log, 1)
    assert cold_read(log, end, 50_000, end + 1, was_just_appended=True) is None
    assert fs.probes == 0


def test_who_reads_on_does_not_have_the_kernel_asked_for_the_index(log: Log, fs: CountingFs) -> None:
    assert fetch(log, fs, 0)[0] == 4
    fs.probes = 0
    assert cold_read(log, 4, 50_000, log.log_end_offset) is None
    assert fs.probes == 1, "for the records"


def test_damage_that_a_job_meets_is_left_to_the_owner(log: Log, fs: CountingFs) -> None:
    first = log.segments()[0]
    with open(first.path(), "r+b") as file:
        file.write(b"\xff" * 100)
    with open(first.path(".index"), "r+b") as file:
        file.truncate(1)
    before = Path(first.path(".index")).read_bytes()
    cold = cold_read(log, 5, 50_000, log.log_end_offset)
    assert cold is not None
    cold.run()
    assert Path(first.path(".index")).read_bytes() == before


@pytest.fixture
def cached_fd(tmp_path: Path) -> Iterator[int]:
    """A file of ten pages, all of them in the page cache."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(10 * PAGE))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("holds", [page_cache.holds, page_cache.can_be_read_at_once])
def test_what_was_just_written_is_in_the_page_cache(holds: Holds, cached_fd: int) -> None:
    assert holds(cached_fd, 0, 10 * PAGE)
    assert holds(cached_fd, PAGE - 1, 2)


def test_what_was_evicted_is_there_again_once_it_is_read(cached_fd: int) -> None:
    # Whether the kernel evicts is its own affair: on tmpfs it does not, and read-ahead may bring pages back at once.
    os.fsync(cached_fd)
    os.posix_fadvise(cached_fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(cached_fd, 10 * PAGE, 0)
    assert page_cache.holds(cached_fd, 0, 10 * PAGE)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (10 * PAGE, True),
        (9 * PAGE, False),
        (BlockingIOError(errno.EAGAIN, "would block"), False),
        (OSError(errno.EOPNOTSUPP, "not supported"), True),
    ],
    ids=["all", "a part", "none", "a file system that cannot tell"],
)
def test_a_read_that_does_not_wait_tells_what_is_there(
    answer: int | OSError, expected: bool, cached_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(fd: int, buffers: list[memoryview], position: int, flags: int) -> int:
        assert (fd, position, flags) == (cached_fd, 0, os.RWF_NOWAIT)
        if isinstance(answer, OSError):
            raise answer
        return min(answer, len(buffers[0]))

    monkeypatch.setattr(os, "preadv", preadv)
    assert page_cache.can_be_read_at_once(cached_fd, 0, 10 * PAGE) is expected


@pytest.mark.parametrize("unknown", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_cachestat_is_asked_by_reading(
    unknown: int, cached_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        ctypes.set_errno(unknown)
        return -1

    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(page_cache, "_syscall", refuse)
    monkeypatch.setattr(page_cache, "can_be_read_at_once", lambda *wanted: asked.append(wanted) or False)
    assert not page_cache.holds(cached_fd, PAGE, 2 * PAGE)
    assert asked == [(cached_fd, PAGE, 2 * PAGE)]
