"""Offset, time and transaction indexes: the bytes of their files and what lookups find."""

import os
import random
import struct
from pathlib import Path

import pytest

from kpy.storage.fs import OsFs
from kpy.storage.index import RUN_ENTRIES, AbortedTxn, CorruptIndexError, OffsetIndex, TimeIndex, TransactionIndex
from kpy.storage.segment_files import SegmentFiles

FS = OsFs()
BASE = 5_000_000_000


@pytest.fixture
def offset_index(tmp_path: Path) -> OffsetIndex:
    index = OffsetIndex(SegmentFiles(FS, str(tmp_path), BASE))
    index.create()
    for offset, position in ((10, 100), (20, 220), (30, 350)):
        index.append(BASE + offset, position)
    return index


@pytest.fixture
def time_index(tmp_path: Path) -> TimeIndex:
    index = TimeIndex(SegmentFiles(FS, str(tmp_path), BASE))
    index.create()
    for timestamp, offset in ((1000, 10), (2000, 20), (3000, 30)):
        index.append_if_later(timestamp, BASE + offset)
    return index


def test_offset_index_file_has_relative_offsets_and_positions(offset_index: OffsetIndex) -> None:
    offset_index.release()
    assert Path(offset_index.path).read_bytes() == struct.pack(">6i", 10, 100, 20, 220, 30, 350)


def test_time_index_file_has_timestamps_and_relative_offsets(time_index: TimeIndex) -> None:
    time_index.release()
    assert Path(time_index.path).read_bytes() == struct.pack(">qiqiqi", 1000, 10, 2000, 20, 3000, 30)


@pytest.mark.parametrize("in_memory", [True, False])
def test_offset_lookup_finds_the_last_append_that_ends_at_or_below(offset_index: OffsetIndex, in_memory: bool) -> None:
    if not in_memory:
        offset_index.release()
    found = [offset_index.position_for(BASE + offset) for offset in (0, 9, 10, 11, 29, 30, 99)]
    assert found == [0, 0, 100, 100, 220, 350, 350]
    assert [offset_index.boundary_before(position) for position in (0, 99, 100, 349, 350, 900)] == [
        0,
        0,
        100,
        220,
        350,
        350,
    ]
    assert offset_index.last() == (BASE + 30, 350)


@pytest.mark.parametrize("in_memory", [True, False])
def test_time_lookup_finds_the_last_entry_at_or_before(time_index: TimeIndex, in_memory: bool) -> None:
    if not in_memory:
        time_index.release()
    found = [time_index.floor(timestamp) for timestamp in (999, 1000, 2999, 3000, 9000)]
    assert found == [(-1, BASE), (1000, BASE + 10), (2000, BASE + 20), (3000, BASE + 30), (3000, BASE + 30)]


class CountingFs(OsFs):
    """Counts the reads."""

    def __init__(self) -> None:
        self.reads = 0

    def pread(self, fd: int, size: int, position: int) -> bytes:  # type: ignore[override]
        self.reads += 1
        return os.pread(fd, size, position)


def released_index(fs: OsFs, tmp_path: Path, entries: int) -> OffsetIndex:
    """An entry for each tenth offset, and for each hundredth position."""
    index = OffsetIndex(SegmentFiles(fs, str(tmp_path), BASE))
    index.create()
    for number in range(1, entries + 1):
        index.append(BASE + 10 * number, 100 * number)
    index.release()
    return index


def test_lookups_in_any_order_find_what_is_in_the_file(tmp_path: Path) -> None:
    count = 3 * RUN_ENTRIES
    index, rng = released_index(FS, tmp_path, count), random.Random(1)
    for _ in range(2000):
        near = rng.choice([0, 1, 2, RUN_ENTRIES, RUN_ENTRIES + 1, count - 1, count, rng.randrange(count)])
        offset, position = 10 * near + rng.randrange(-5, 15), 100 * near + rng.randrange(-50, 150)
        assert index.position_for(BASE + offset) == 100 * min(max(offset // 10, 0), count)
        assert index.boundary_before(position) == 100 * min(max(position // 100, 0), count)


def test_who_reads_on_finds_the_next_entries_without_the_file(tmp_path: Path) -> None:
    fs = CountingFs()
    index = released_index(fs, tmp_path, 3 * RUN_ENTRIES)
    index.boundary_before(100)
    fs.reads = 0
    assert [index.boundary_before(100 * number) for number in range(1, RUN_ENTRIES)] == list(
        range(100, 100 * RUN_ENTRIES, 100)
    )
    assert fs.reads == 0
    index.forget_run()
    assert index.boundary_before(100) == 100
    assert fs.reads > 0


def test_a_lookup_after_a_truncation_does_not_find_what_was_there_before(tmp_path: Path) -> None:
    index = released_index(FS, tmp_path, 20)
    assert index.position_for(BASE + 55) == 500
    index.truncate_to(BASE + 40)
    index.append(BASE + 52, 1000)
    index.release()
    assert index.position_for(BASE + 55) == 1000


def test_time_index_takes_only_later_timestamps(time_index: TimeIndex) -> None:
    time_index.append_if_later(3000, BASE + 40)
    time_index.append_if_later(2500, BASE + 41)
    assert time_index.count == 3
    assert time_index.last() == (3000, BASE + 30)


def test_empty_indexes_answer_with_the_start(tmp_path: Path) -> None:
    files = SegmentFiles(FS, str(tmp_path), BASE)
    offset_index, time_index = OffsetIndex(files), TimeIndex(files)
    for index in (offset_index, time_index):
        index.create()
    assert (offset_index.last(), offset_index.position_for(BASE + 5)) == ((BASE, 0), 0)
    assert (time_index.last(), time_index.floor(5)) == ((-1, BASE), (-1, BASE))


@pytest.mark.parametrize(("offset", "kept"), [(9, 0), (10, 0), (11, 1), (20, 1), (30, 2), (31, 3)])
def test_truncation_drops_entries_at_and_above_the_offset(
    offset_index: OffsetIndex, time_index: TimeIndex, offset: int, kept: int
) -> None:
    for index in (offset_index, time_index):
        index.release()
        index.load()
        index.truncate_to(BASE + offset)
        assert index.count == kept
    assert Path(offset_index.path).stat().st_size == 8 * kept
    assert Path(time_index.path).stat().st_size == 12 * kept


def test_entries_are_saved_once_and_grow_after_reloading(offset_index: OffsetIndex, tmp_path: Path) -> None:
    offset_index.save()
    offset_index.append(BASE + 40, 480)
    offset_index.save()
    again = OffsetIndex(SegmentFiles(FS, str(tmp_path), BASE))
    again.attach()
    assert again.last() == (BASE + 40, 480)
    again.load()
    again.append(BASE + 50, 600)
    again.release()
    assert again.position_for(BASE + 55) == 600
    assert Path(again.path).stat().st_size == 40


def test_indexes_are_full_at_their_configured_size(offset_index: OffsetIndex, time_index: TimeIndex) -> None:
    assert [offset_index.is_full(size) for size in (24, 31, 32)] == [True, True, False]
    assert [time_index.is_full(size) for size in (36, 48, 59, 60)] == [True, True, True, False]


@pytest.mark.parametrize("content", [None, b"1234567"])
def test_missing_file_or_odd_size_is_corrupt(tmp_path: Path, content: bytes | None) -> None:
    index = OffsetIndex(SegmentFiles(FS, str(tmp_path), BASE))
    if content is not None:
        Path(index.path).write_bytes(content)
    with pytest.raises(CorruptIndexError):
        index.attach()


def test_aborted_transactions_are_listed_in_34_bytes_each(tmp_path: Path) -> None:
    index = TransactionIndex(SegmentFiles(FS, str(tmp_path), 0))
    assert index.read() == []
    assert not Path(index.path).exists()
    txns = [AbortedTxn(7, 1, 5, 6), AbortedTxn(8, 2, 9, 10)]
    for txn in txns:
        index.append(txn)
    assert Path(index.path).read_bytes() == struct.pack(">hqqqqhqqqq", 0, 7, 1, 5, 6, 0, 8, 2, 9, 10)
    assert index.read() == txns
    index.truncate_to(9)
    assert index.read() == txns[:1]
    index.reset()
    assert index.read() == []


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        struct.pack(">hqqqq", 1, 7, 101, 105, 106),
        struct.pack(">hqqqq", 0, 7, 1, 5, 6),
        struct.pack(">hqqqq", 0, 7, 106, 105, 6),
    ],
)
def test_impossible_aborted_transaction_is_corrupt(tmp_path: Path, data: bytes) -> None:
    index = TransactionIndex(SegmentFiles(FS, str(tmp_path), 100))
    Path(index.path).write_bytes(data)
    with pytest.raises(CorruptIndexError):
        index.read()
