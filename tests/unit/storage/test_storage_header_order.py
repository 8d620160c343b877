"""Base offsets that the disk has changed are found before a batch is sent, and what is known is not read again."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import NewRecord, build_batch, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.cold_read import cold_read
from kpy.storage.fs import OsFs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.storage.scan import CorruptBatchError
from kpy.storage.segment import Segment

BATCHES = 12
RECORDS = 8
"""In each batch, so that many a flipped bit moves it by less than its own length."""
END_OFFSET = BATCHES * RECORDS
ALL = 1 << 20


class CountingFs(OsFs):
    """Counts reads of .log files, and says what is in the page cache."""

    def __init__(self) -> None:
        self.reads = 0
        self.is_warm = True

    def pread(self, fd: int, size: int, position: int) -> bytes:  # type: ignore[override]  # OsFs binds os.pread
        self.reads += os.readlink(f"/proc/self/fd/{fd}").endswith(".log")
        return os.pread(fd, size, position)

    def is_cached(self, fd: int, position: int, size: int) -> bool:  # type: ignore[override]  # OsFs binds a function
        return self.is_warm


@pytest.fixture
def fs() -> CountingFs:
    return CountingFs()


@pytest.fixture(params=[4096, 500], ids=["one index entry", "many index entries"])
def dirs(request: pytest.FixtureRequest, tmp_path: Path, fs: CountingFs) -> Iterator[LogDirs]:
    dirs = open_dirs(tmp_path, fs, LogConfig(index_interval_bytes=request.param))
    yield dirs
    dirs.close()


def open_dirs(root: Path, fs: CountingFs, config: LogConfig) -> LogDirs:
    return LogDirs.open(
        [root], broker_id=1, cluster_id=None, now_ms=0, config_for=lambda _: config, rng=random.Random(1), fs=fs
    )


def fill(dirs: LogDirs, index_interval_bytes: int = 500) -> Log:
    log = dirs.create_log("t", 0, bytes(range(16)), LogConfig(index_interval_bytes=index_interval_bytes))
    for _ in range(BATCHES):
        data = build_batch([NewRecord(1, None, bytes(40)) for _ in range(RECORDS)])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)
    log.high_watermark = log.log_end_offset
    return log


def reopened(dirs: LogDirs, log: Log) -> Segment:
    """The segment as another process would find it."""
    log.close()
    return Segment.attach(dirs.fs, str(log.dir), 0, 500)


def flip(segment: Segment, slot: int, bit: int) -> None:
    size = segment.size // BATCHES
    data = bytearray(Path(segment.path()).read_bytes())
    data[slot * size + 7 - bit // 8] ^= 1 << bit % 8
    Path(segment.path()).write_bytes(data)


def offsets(segment: Segment, offset: int, max_bytes: int = ALL) -> list[int]:
    region = segment.read(offset, max_bytes, END_OFFSET, END_OFFSET, True)
    return [] if region is None else [header.base_offset for header, _ in iter_batches(region.read())]


def read_all(segment: Segment, max_bytes: int, seen: list[int]) -> None:
    offset = 0
    while found := offsets(segment, offset, max_bytes):
        seen += found
        offset = found[-1] + RECORDS


@pytest.mark.parametrize("slot", range(BATCHES))
@pytest.mark.parametrize("batches_at_once", [1, 3, BATCHES])
def test_a_flipped_bit_of_a_base_offset_ends_what_is_sent(dirs: LogDirs, slot: int, batches_at_once: int) -> None:
    log = fill(dirs)
    whole = reopened(dirs, log)
    size = batches_at_once * whole.size // BATCHES
    for bit in range(64):
        flip(whole, slot, bit)
        segment = Segment.attach(dirs.fs, str(log.dir), 0, 500)
        seen = list[int]()
        with pytest.raises(CorruptBatchError):
            read_all(segment, size, seen)
        assert seen == [RECORDS * each for each in range(len(seen))], bit
        assert len(seen) <= slot
        assert len(seen) == slot or batches_at_once == 1
        flip(whole, slot, bit)


def test_what_is_behind_a_damaged_batch_can_be_read(dirs: LogDirs) -> None:
    log = fill(dirs)
    for bit in range(3, 64):
        segment = reopened(dirs, log)
        flip(segment, 4, bit)
        position = 5 * segment.size // BATCHES
        segment.positions[5 * RECORDS] = position
        assert offsets(segment, 5 * RECORDS) == [RECORDS * each for each in range(5, BATCHES)]
        flip(segment, 4, bit)


def test_what_this_process_appends_is_not_looked_at(dirs: LogDirs, fs: CountingFs) -> None:
    log = fill(dirs)
    segment = log.segments()[0]
    segment.positions[0] = 0
    fs.reads = 0
    assert segment.read(0, ALL, END_OFFSET, END_OFFSET, True) is not None
    assert fs.reads == 0


def test_batches_are_looked_at_once(dirs: LogDirs, fs: CountingFs) -> None:
    segment = reopened(dirs, fill(dirs))
    half = END_OFFSET // 2
    assert segment.read(0, ALL, half, END_OFFSET, True) is not None
    assert segment.read(half, ALL, END_OFFSET, END_OFFSET, True) is not None
    fs.reads = 0
    for offset in (0, half):
        assert segment.read(offset, ALL, END_OFFSET, END_OFFSET, True) is not None
    assert fs.reads == 0
    assert segment.header_order.unseen_end == 0


def test_readers_of_two_places_meet(dirs: LogDirs, fs: CountingFs) -> None:
    segment = reopened(dirs, fill(dirs))
    middle = END_OFFSET // 2
    assert offsets(segment, middle)[0] == middle
    assert offsets(segment, 0)[0] == 0
    assert segment.header_order.unseen_end == 0


def test_what_left_the_page_cache_is_looked_at_again(dirs: LogDirs, fs: CountingFs) -> None:
    log = fill(dirs)
    log.flush()
    segment = log.segments()[0]
    assert len(offsets(segment, 0)) == BATCHES
    flip(segment, 3, 2)
    assert len(offsets(segment, 0)) == BATCHES  # The damage is on the disk, and the page cache right, as far as known.
    fs.is_warm = False
    read = cold_read(log, 0, ALL, END_OFFSET)
    assert read is not None
    read.run()
    assert len(offsets(segment, 0)) == 3
    with pytest.raises(ApiError) as error:
        log.read(3 * RECORDS, ALL, END_OFFSET, True)
    assert error.value.code is ErrorCode.CORRUPT_MESSAGE


def test_gaps_that_compaction_left_are_no_damage(dirs: LogDirs) -> None:
    log = fill(dirs)
    segment = reopened(dirs, log)
    data = [bytearray(each) for _, each in iter_batches(Path(segment.path()).read_bytes())]
    for number, each in enumerate(data):
        each[:8] = (5 + number * (RECORDS + 100)).to_bytes(8)
    Path(segment.path()).write_bytes(b"".join(data))
    end_offset = 5 + BATCHES * (RECORDS + 100)
    for start in (0, 5, 113, 300):
        segment = Segment.attach(dirs.fs, str(log.dir), 0, 500)
        region = segment.read(start, ALL, end_offset, end_offset, True)
        assert region is not None
        assert region.position + region.size == segment.size


def test_a_segment_that_was_cut_is_read_up_to_its_new_end(dirs: LogDirs) -> None:
    log = fill(dirs)
    segment = reopened(dirs, log)
    half = END_OFFSET // 2
    assert len(offsets(segment, 0)) == BATCHES - (segment.header_order.unseen_end > 0)
    assert segment.truncate_to(half) == half
    data = build_batch([NewRecord(1, None, b"other")], base_offset=half)
    segment.append([data], len(data), half, 1)
    region = segment.read(0, ALL, half + 1, half + 1, True)
    assert region is not None
    assert [header.base_offset for header, _ in iter_batches(region.read())][-1] == half


@pytest.mark.parametrize("bit", range(64))
def test_a_clean_start_finds_that_the_last_batch_has_moved(tmp_path: Path, fs: CountingFs, bit: int) -> None:
    config = LogConfig(index_interval_bytes=500)
    dirs = open_dirs(tmp_path, fs, config)
    fill(dirs)
    dirs.close()
    flip(Segment.attach(fs, str(tmp_path / "t-0"), 0, 500), BATCHES - 1, bit)
    dirs = open_dirs(tmp_path, fs, config)
    assert dirs.logs["t", 0].log_end_offset == END_OFFSET - RECORDS
    dirs.close(clean=False)


def test_one_look_finds_the_end_of_large_batches_of_its_own(dirs: LogDirs, fs: CountingFs) -> None:
    log = fill(dirs, index_interval_bytes=1)
    size = log.segments()[0].size // BATCHES
    assert log.read(0, 3 * size + 1, END_OFFSET, True)
    fs.reads = 0
    for slot in range(3, BATCHES - 3, 3):
        read = log.read(slot * RECORDS, 3 * size + 1, END_OFFSET, True)
        assert read is not None
        assert (read.position, read.size) == (slot * size, 3 * size)
    assert fs.reads == 2
