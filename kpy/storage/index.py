"""A segment's indexes: from offsets to file positions, from timestamps to offsets, and the list of aborted
transactions.

Entries are fixed-size and sorted, so a lookup is a binary search (Kafka classes OffsetIndex, TimeIndex,
TransactionIndex).

While a segment is active its entries live in memory: the append path writes no index bytes. They reach the file when
the segment is flushed, rolled or closed. Nothing is lost by that: after a crash every segment from the recovery point
on is scanned and its indexes are rebuilt, and the recovery point moves only after a flush. For an inactive segment a
lookup opens the file and reads the log2(n) entries that the search touches, which the page cache holds. The run of
entries that begins where it has ended stays in memory until the segment is idle: who reads on finds the next there.
"""

import struct
from bisect import bisect_right
from typing import NamedTuple

from kpy.storage.fs import File, FileTooLargeError, Fs, read_file, remove_if_exists
from kpy.storage.segment_files import OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, SegmentFiles

OFFSET_ENTRY = struct.Struct(">ii")
TIME_ENTRY = struct.Struct(">qi")
TXN_ENTRY = struct.Struct(">hqqqq")

NO_TIMESTAMP = -1
MAX_RELATIVE_OFFSET = 0x7FFFFFFF
MAX_INDEX_BYTES = 0x7FFFFFFF
"""What segment.index.bytes, by which segments roll, can be."""

RUN_ENTRIES = 512
"""Of an index that is not in memory: 4 or 6 kB, which speak of 2 MB of records and more."""


_NO_RUN: tuple[int, bytes] = (0, b"")


class CorruptIndexError(Exception):
    """An index file whose bytes cannot be right; it is to be rebuilt from the log."""


class _Index:
    """Sorted fixed-size entries of two integers, in memory while they grow, in their file otherwise."""

    __slots__ = ("_base_offset", "_files", "_kind", "_layout", "_memory", "_run", "_saved_count", "count")

    def __init__(self, files: SegmentFiles, kind: str, layout: struct.Struct) -> None:
        self._files = files
        self._base_offset = files.base_offset
        self._kind = kind
        self._layout = layout
        self._memory: bytearray | None = None
        self._saved_count = 0
        self.count = 0
        self._run = _NO_RUN

    @property
    def path(self) -> str:
        return self._files.path(self._kind)

    def _open(self, create: bool = False) -> File:
        return File(self._files.fs, self.path, create)

    def create(self) -> None:
        """Start an empty index with an empty file."""
        self.forget_run()
        self._memory = bytearray()
        self.count = self._saved_count = 0
        self._open(create=True).truncate(0)

    def attach(self) -> None:
        """Take over an existing file without reading it. Raises CorruptIndexError when its size cannot be right."""
        try:
            size = self._files.fs.size(self.path)
        except FileNotFoundError as error:
            raise CorruptIndexError(f"{self.path} is missing") from error
        if size % self._layout.size:
            raise CorruptIndexError(f"{self.path} has {size} bytes, not a multiple of {self._layout.size}")
        self.forget_run()
        self._memory = None
        self.count = self._saved_count = size // self._layout.size

    def load(self) -> None:
        """Bring the entries into memory, so that the index can grow."""
        if self._memory is None:
            self.forget_run()
            # Most segments of a broker with many partitions are too short for an entry: nothing to open then.
            read = read_file(self._files.fs, self.path, MAX_INDEX_BYTES) if self.count else b""
            self._memory = bytearray(read)

    @property
    def in_memory(self) -> bool:
        return self._memory is not None

    def _is_cached_for(self, column: int, target: int) -> bool:
        """Whether the lookup of `target` need not wait for the disk."""
        if self._memory is not None or not self.count or self._is_in(self._run[1], column, target):
            return True
        return self._open().is_cached(0, self.count * self._layout.size)

    def _add(self, first: int, second: int) -> None:
        memory = self._memory
        assert memory is not None, "only the index of an active segment grows"
        memory += self._layout.pack(first, second)
        self.count += 1

    def _truncate(self, count: int) -> None:
        """Keep the first `count` entries, in memory and in the file."""
        self.load()
        assert self._memory is not None
        del self._memory[count * self._layout.size :]
        self.count = count
        if self._saved_count > count:
            self._open().truncate(count * self._layout.size)
            self._saved_count = count

    def save(self, sync: bool = False) -> None:
        """Bring the file up to the entries in memory, durably with `sync`."""
        if self._memory is not None and self.count > self._saved_count:
            start = self._saved_count * self._layout.size
            file = self._open(create=True)
            file.write(self._memory[start:], start)
            if sync:
                file.sync()
            self._saved_count = self.count

    def release(self) -> None:
        """Save, and leave the entries to the file."""
        self.save()
        self._memory = None

    def sync(self) -> None:
        """Make a file durable that does not grow any more. May run in a worker thread."""
        self._open().sync()

    def _entry(self, slot: int) -> tuple[int, int]:
        layout = self._layout
        if self._memory is not None:
            return layout.unpack_from(self._memory, slot * layout.size)
        run_start, run = self._run
        place = (slot - run_start) * layout.size
        if 0 <= place < len(run):
            return layout.unpack_from(run, place)
        return layout.unpack(self._open().read(layout.size, slot * layout.size))

    def _floor_slot(self, column: int, target: int) -> int:
        """The last slot whose value in `column` is <= target; -1 when there is none."""
        if self._memory is not None:
            return self._floor_in(self._memory, column, target)
        run_start, run = self._run
        if not self._is_in(run, column, target):
            # Both at once, since the planning of a compaction looks things up in another thread.
            self._run = found = self._read_run(column, target)
            run_start, run = found
        return run_start + self._floor_in(run, column, target)

    def _floor_in(self, entries: bytes | bytearray, column: int, target: int) -> int:
        unpack_from, size = self._layout.unpack_from, self._layout.size
        slots = range(len(entries) // size)
        return bisect_right(slots, target, key=lambda slot: unpack_from(entries, slot * size)[column]) - 1

    def _is_in(self, run: bytes, column: int, target: int) -> bool:
        unpack_from, size = self._layout.unpack_from, self._layout.size
        return bool(run) and unpack_from(run)[column] <= target < unpack_from(run, len(run) - size)[column]

    def _read_run(self, column: int, target: int) -> tuple[int, bytes]:
        file, unpack_from, size = self._open(), self._layout.unpack_from, self._layout.size
        above = bisect_right(
            range(self.count), target, key=lambda slot: unpack_from(file.read(size, slot * size))[column]
        )
        start = max(0, above - 1)
        return start, file.read(min(RUN_ENTRIES, self.count - start) * size, start * size)

    def forget_run(self) -> None:
        """Give back what the last lookup has left, or what it has left is not true any more."""
        self._run = _NO_RUN


class OffsetIndex(_Index):
    """Where in the segment an offset is found: (last offset of an append, position where that append starts)."""

    __slots__ = ()

    def __init__(self, files: SegmentFiles) -> None:
        super().__init__(files, OFFSET_INDEX_SUFFIX, OFFSET_ENTRY)

    def append(self, offset: int, position: int) -> None:
        self._add(offset - self._base_offset, position)

    def position_for(self, offset: int) -> int:
        """A batch boundary at or before the batch that holds `offset`; 0 when no entry is that low."""
        slot = self._floor_slot(0, offset - self._base_offset)
        return self._entry(slot)[1] if slot >= 0 else 0

    def boundary_before(self, position: int) -> int:
        """The last indexed batch boundary <= position; 0 when there is none."""
        slot = self._floor_slot(1, position)
        return self._entry(slot)[1] if slot >= 0 else 0

    def knows_boundary_before(self, position: int) -> bool:
        """Whether `boundary_before` need not wait for the disk."""
        return self._is_cached_for(1, position)

    def last(self) -> tuple[int, int]:
        """(offset, position) of the last entry; (base offset, 0) when empty."""
        if not self.count:
            return self._base_offset, 0
        relative_offset, position = self._entry(self.count - 1)
        return self._base_offset + relative_offset, position

    def truncate_to(self, offset: int) -> None:
        """Drop the entries at and above `offset`."""
        self._truncate(self._floor_slot(0, offset - 1 - self._base_offset) + 1)

    def is_full(self, max_bytes: int) -> bool:
        return self.count >= max_bytes // OFFSET_ENTRY.size


class TimeIndex(_Index):
    """From which offset on timestamps can be larger: (largest timestamp so far, last offset of its batch)."""

    __slots__ = ()

    def __init__(self, files: SegmentFiles) -> None:
        super().__init__(files, TIME_INDEX_SUFFIX, TIME_ENTRY)

    def append_if_later(self, timestamp: int, offset: int) -> None:
        if timestamp > self.last()[0]:
            self._add(timestamp, offset - self._base_offset)

    def last(self) -> tuple[int, int]:
        """(timestamp, offset) of the last entry; (NO_TIMESTAMP, base offset) when empty."""
        count = self.count
        return self._time_entry(count - 1) if count else (NO_TIMESTAMP, self._base_offset)

    def floor(self, timestamp: int) -> tuple[int, int]:
        """The last entry whose timestamp is <= the given one; (NO_TIMESTAMP, base offset) when there is none."""
        slot = self._floor_slot(0, timestamp)
        return self._time_entry(slot) if slot >= 0 else (NO_TIMESTAMP, self._base_offset)

    def truncate_to(self, offset: int) -> None:
        """Drop the entries at and above `offset`."""
        self._truncate(self._floor_slot(1, offset - 1 - self._base_offset) + 1)

    def is_full(self, max_bytes: int) -> bool:
        """One slot short of full, since closing the segment adds a last entry."""
        return self.count >= max_bytes // TIME_ENTRY.size - 1

    def _time_entry(self, slot: int) -> tuple[int, int]:
        timestamp, relative_offset = self._entry(slot)
        return timestamp, self._base_offset + relative_offset


class AbortedTxn(NamedTuple):
    """One aborted transaction: what a read_committed consumer must filter."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class TransactionIndex:
    """The aborted transactions whose marker lies in the segment, in the order of their markers.

    Aborts are rare, so entries are written to the file at once and read from it when needed; without aborts there is no
    file.
    """

    __slots__ = ("_files", "_is_known_empty")

    def __init__(self, files: SegmentFiles) -> None:
        self._files = files
        self._is_known_empty = False

    @property
    def path(self) -> str:
        return self._files.path(TXN_INDEX_SUFFIX)

    def append(self, txn: AbortedTxn) -> None:
        self._is_known_empty = False
        fs, path = self._files.fs, self.path
        File(fs, path, create=True).write(TXN_ENTRY.pack(0, *txn), fs.size(path))

    def read(self) -> list[AbortedTxn]:
        """Every entry. Raises CorruptIndexError for bytes that cannot be entries of this segment.

        That there is no file is found out once: each fetch of a read_committed consumer asks all later segments.
        """
        if self._is_known_empty:
            return []
        try:
            return read_txns(self._files.fs, self.path, self._files.base_offset)
        except FileNotFoundError:
            self._is_known_empty = True
            return []

    def truncate_to(self, offset: int) -> None:
        """Drop the transactions whose marker is at or above `offset`."""
        kept = sum(1 for txn in self.read() if txn.last_offset < offset)
        fs, path = self._files.fs, self.path
        if fs.exists(path):
            File(fs, path).truncate(kept * TXN_ENTRY.size)

    def reset(self) -> None:
        remove_if_exists(self._files.fs, self.path)

    def sync(self) -> None:
        fs, path = self._files.fs, self.path
        if fs.exists(path):
            File(fs, path).sync()


def read_txns(fs: Fs, path: str, base_offset: int) -> list[AbortedTxn]:
    """Every entry of a transaction index. Raises FileNotFoundError and CorruptIndexError."""
    try:
        data = read_file(fs, path)
    except FileTooLargeError as error:
        raise CorruptIndexError(str(error)) from error
    if len(data) % TXN_ENTRY.size:
        raise CorruptIndexError(f"{path} has {len(data)} bytes, not a multiple of {TXN_ENTRY.size}")
    txns: list[AbortedTxn] = []
    for version, *fields in TXN_ENTRY.iter_unpack(data):
        txn = AbortedTxn(*fields)
        if version != 0 or txn.last_offset < base_offset or not 0 <= txn.first_offset < txn.last_offset:
            raise CorruptIndexError(f"{path} has an entry that cannot be: version {version}, {txn}")
        txns.append(txn)
    return txns
