"""One segment of a log: a file of record batches, its offset index, its time index and its transaction index.

Positions are byte positions in the .log file, offsets are record offsets. The size is tracked in memory, so an append
is one pwritev at a known position and a read asks the file system for nothing. Kafka classes LogSegment and
FileRecords.

Finding a batch costs an index lookup and a walk over the headers behind it. Sequential readers skip both: where a read
ends, the next one begins, so each segment remembers the boundaries that recent reads have ended at.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial

from kpy.records.batch import LOG_OVERHEAD, BatchHeader
from kpy.storage.fs import Buffer, File, FileRegion, Fs, remove_if_exists
from kpy.storage.header_order import HeaderOrder
from kpy.storage.index import (
    MAX_RELATIVE_OFFSET,
    NO_TIMESTAMP,
    CorruptIndexError,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
)
from kpy.storage.log_config import LONG_MAX
from kpy.storage.preallocation import trim
from kpy.storage.scan import CorruptBatchError, Found, end_of_fitting, header_at, scan_batches, scan_headers
from kpy.storage.segment_files import LOG_SUFFIX, SUFFIXES, SegmentFiles

MAX_REMEMBERED_POSITIONS = 64
"""Per segment: about as many sequential readers can follow it without index lookups."""

_log = logging.getLogger(__name__)


class Segment:
    """The batches from `base_offset` up to the next segment's base offset.

    Only the last segment of a log, the active one, is appended to. `max_timestamp` and its offset are read from the
    time index when first needed; `first_timestamp`, the first batch's, from the log.
    """

    __slots__ = (
        "_bytes_since_index_entry",
        "_first_append_ms",
        "_first_timestamp",
        "_max_timestamp",
        "_offset_of_max_timestamp",
        "_pwritev",
        "base_offset",
        "files",
        "fs",
        "header_order",
        "index_interval_bytes",
        "index_is_sound",
        "offset_index",
        "open_file",
        "positions",
        "size",
        "time_index",
        "txn_index",
        "was_used",
    )

    def __init__(self, fs: Fs, directory: str, base_offset: int, index_interval_bytes: int, suffix: str = "") -> None:
        self.fs = fs
        self._pwritev = fs.pwritev
        self.files = files = SegmentFiles(fs, directory, base_offset, suffix)
        self.open_file: File | None = None
        self.base_offset = base_offset
        self.index_interval_bytes = index_interval_bytes
        self.size = 0
        self._first_append_ms: int | None = None
        self.was_used = False
        self.offset_index = OffsetIndex(files)
        self.time_index = TimeIndex(files)
        self.txn_index = TransactionIndex(files)
        self.header_order = HeaderOrder(base_offset, self.offset_index)
        self.index_is_sound = False
        self._bytes_since_index_entry = 0
        self._first_timestamp: int | None = None
        self._max_timestamp: int | None = None
        self._offset_of_max_timestamp = base_offset
        self.positions: dict[int, int] = {}

    @classmethod
    def create(cls, fs: Fs, directory: str, base_offset: int, index_interval_bytes: int, suffix: str = "") -> "Segment":
        """A new empty segment with its files; leftovers under its names are emptied."""
        segment = cls(fs, directory, base_offset, index_interval_bytes, suffix)
        segment.open_file = File(fs, segment.path(), create=True)
        segment.open_file.truncate(0)
        segment.reset_indexes()
        return segment

    @classmethod
    def attach(cls, fs: Fs, directory: str, base_offset: int, index_interval_bytes: int, suffix: str = "") -> "Segment":
        """An existing segment; nothing of it is read before it is needed."""
        segment = cls(fs, directory, base_offset, index_interval_bytes, suffix)
        segment.size = segment.header_order.unseen_end = fs.size(segment.path())
        return segment

    def path(self, kind: str = LOG_SUFFIX) -> str:
        return self.files.path(kind)

    @property
    def file(self) -> File:
        if self.open_file is None:
            self.open_file = File(self.fs, self.path())
        return self.open_file

    # Writing.

    def append(self, buffers: Sequence[Buffer], size: int, last_offset: int, max_timestamp: int) -> None:
        """Write one append of `size` bytes at the end. When it raises OSError, the segment is as it was before."""
        self.was_used = True
        position = self.size
        file = self.open_file or self.file
        try:
            written = self._pwritev(file.fileno(), buffers, position)
            if written != size:
                file.write(b"".join(buffers)[written:], position + written)
        except OSError:
            file.truncate(position)
            raise
        if not position:
            self._first_timestamp = max_timestamp
        largest = self.max_timestamp if self._max_timestamp is None else self._max_timestamp
        if max_timestamp > largest:
            self._max_timestamp = max_timestamp
            self._offset_of_max_timestamp = last_offset
        if self._bytes_since_index_entry > self.index_interval_bytes:
            self._add_index_entry(last_offset, position)
        self._bytes_since_index_entry += size
        self.size = position + size

    def _add_index_entry(self, last_offset: int, position: int) -> None:
        self.offset_index.append(last_offset, position)
        self.time_index.append_if_later(self.max_timestamp, self._offset_of_max_timestamp)
        self._bytes_since_index_entry = 0

    def can_hold(self, offset: int) -> bool:
        """Whether the indexes can express the offset relative to the base offset."""
        return 0 <= offset - self.base_offset <= MAX_RELATIVE_OFFSET

    def waited_for_roll_ms(self, now_ms: int, max_timestamp: int) -> int:
        """The age that segment.ms is about: by the records' own time if they have one, else since the first append."""
        first = self.first_timestamp
        if first >= 0:
            return max_timestamp - first
        if self._first_append_ms is None:
            self._first_append_ms = now_ms
        return now_ms - self._first_append_ms

    def is_index_full(self, max_bytes: int) -> bool:
        return self.offset_index.is_full(max_bytes) or self.time_index.is_full(max_bytes)

    def become_inactive(self) -> None:
        """Complete the indexes and leave them to their files."""
        trim(self.fs, self.path(), self.size)
        self._close_time_index()
        self.offset_index.release()
        self.time_index.release()

    def become_active(self) -> None:
        """Bring the indexes into memory, rebuilt if they are damaged."""
        self._check_or_rebuild_indexes(load=True)

    def _close_time_index(self) -> None:
        if self._max_timestamp is not None and self._max_timestamp >= 0:
            self.time_index.load()
            self.time_index.append_if_later(self._max_timestamp, self._offset_of_max_timestamp)

    def save_indexes(self) -> None:
        self.offset_index.save()
        self.time_index.save()

    def flush(self) -> None:
        """Make the segment durable. May run in a worker thread.

        The indexes of an active segment are left out: after a crash it is read again in any case.
        """
        self.file.sync()
        self.txn_index.sync()
        if not self.offset_index.in_memory:
            self.offset_index.sync()
            self.time_index.sync()

    def close(self) -> None:
        """Complete the indexes of the active segment, durably, as a clean shutdown needs it."""
        trim(self.fs, self.path(), self.size, sync=True)
        self._close_time_index()
        self.offset_index.save(sync=True)
        self.time_index.save(sync=True)
        self.open_file = None

    def drop_idle_file(self) -> None:
        """Let go of descriptor and index entries if the segment has not been used since the last call."""
        if not self.was_used:
            self.open_file = None
            self.offset_index.forget_run()
            self.time_index.forget_run()
        self.was_used = False

    # Files.

    def moved_to(self, directory: str, suffix: str) -> None:
        """The files have been renamed; open descriptors stay good."""
        self.files.directory = directory
        self.files.suffix = suffix

    def rename(self, suffix: str) -> list[str]:
        """Rename all files to end in `suffix`; returns the new paths."""
        old_paths = [self.path(kind) for kind in SUFFIXES]
        self.moved_to(self.files.directory, suffix)
        renamed: list[str] = []
        for old_path, kind in zip(old_paths, SUFFIXES, strict=True):
            try:
                self.fs.rename(old_path, self.path(kind))
            except FileNotFoundError:
                continue
            renamed.append(self.path(kind))
        return renamed

    def remove(self) -> None:
        for kind in SUFFIXES:
            remove_if_exists(self.fs, self.path(kind))
        self.open_file = None

    # Time.

    @property
    def first_timestamp(self) -> int:
        """The first batch's max timestamp, from which segment.ms counts; NO_TIMESTAMP while empty."""
        if self._first_timestamp is None:
            if not self.size:
                return NO_TIMESTAMP
            found = next(self.headers(0), None)
            if found is None:
                return NO_TIMESTAMP
            self._first_timestamp = found.header.max_timestamp
        return self._first_timestamp

    @property
    def max_timestamp(self) -> int:
        if self._max_timestamp is None:
            self._check_or_rebuild_indexes()
            self._max_timestamp, self._offset_of_max_timestamp = self.time_index.last()
        return self._max_timestamp

    @property
    def offset_of_max_timestamp(self) -> int:
        """The last offset of the batch that has the max timestamp."""
        return self._offset_of_max_timestamp if self.max_timestamp >= 0 else self.base_offset

    def largest_timestamp(self) -> int:
        """For retention: the largest record timestamp, or when the file was last written if records have none."""
        return self.max_timestamp if self.max_timestamp >= 0 else self.fs.modified_ms(self.path())

    # Finding and reading.

    def headers(self, position: int, end: int | None = None, end_offset: int = LONG_MAX) -> Iterator[Found]:
        """Each complete batch from the batch boundary `position` on. Raises CorruptBatchError; CRCs are not checked."""
        end = self.size if end is None else end
        return scan_headers(self.file, self.path(), position, end, self.base_offset, end_offset)

    def batches(self, position: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        """Each complete batch with its bytes, for replay. Raises CorruptBatchError; CRCs are not checked."""
        return scan_batches(self.file, self.path(), position, self.size)

    def batches_from_timestamp(self, timestamp_ms: int, start_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        """The batches that can hold the first record at or after the time, among those from `start_offset` on."""
        self._check_or_rebuild_indexes()
        timestamp, offset = self.time_index.floor(timestamp_ms)
        is_entry = (timestamp, offset) != (NO_TIMESTAMP, self.base_offset)
        if is_entry and not self._has_max_timestamp(offset, timestamp):
            self.rebuild_indexes(keep_in_memory=self.time_index.in_memory)
            timestamp, offset = self.time_index.floor(timestamp_ms)
        for header, batch in self.batches(self._trusted_position_for(max(offset, start_offset))):
            if header.max_timestamp >= timestamp_ms:
                yield header, batch

    def _has_max_timestamp(self, offset: int, timestamp: int) -> bool:
        """Whether the batch that holds `offset` has this max timestamp, as a sound time index says."""
        found = self.find(offset)
        return found is not None and found.header.base_offset <= offset and found.header.max_timestamp == timestamp

    def find(self, offset: int, end_offset: int = LONG_MAX) -> Found | None:
        """The first batch whose last offset is >= `offset`; None when all lie below. Raises CorruptBatchError.

        `end_offset` is where the segment ends, if that is known.
        """
        position = self.positions.get(offset)
        if position is None:
            position = self._trusted_position_for(offset)
        end, size = position, self.size
        for found in self.headers(position, size, end_offset):
            end = found.position + LOG_OVERHEAD + found.header.batch_length
            if found.header.last_offset >= offset:
                if found.header.base_offset > offset:
                    self._check_gap(position, end)
                return found
        if end != size:
            raise CorruptBatchError(self.path(), end, f"no batch ends within the {size - end} bytes from here on")
        return None

    def _check_gap(self, position: int, end: int) -> None:
        """That no batch is at an offset is compaction's doing, or damage: then the offsets around it do not rise."""
        for found in self.headers(self.offset_index.boundary_before(position - 1) if position else 0):
            if found.position >= end:
                break

    def position_of(self, offset: int, end_offset: int = LONG_MAX) -> int | None:
        """Where the batch begins that `find` would find."""
        position = self.positions.get(offset)
        if position is not None:
            return position if position < self.size else None
        found = self.find(offset, end_offset)
        self._remember(offset, self.size if found is None else found.position)
        return None if found is None else found.position

    def read(
        self, offset: int, max_bytes: int, max_offset: int, end_offset: int, min_one_batch: bool
    ) -> FileRegion | None:
        """Whole batches from the one that holds `offset`, all below `max_offset`. None when there is nothing to give.

        `end_offset` is where the segment ends. With `min_one_batch` the first batch is given, however large.
        """
        self.was_used = True
        start = self.position_of(offset, end_offset)
        if start is None:
            return None
        end = self.size
        if max_offset < end_offset:
            limit = self.position_of(max_offset)
            if limit is not None:
                end, end_offset = limit, max_offset
        if end - start > max_bytes:
            end, end_offset = self._last_boundary(start, end, end_offset, max_bytes, min_one_batch)
        if end <= start:
            return None
        if start < self.header_order.unseen_end:
            end, end_offset = self.header_order.check(self.file, self.path(), self.size, (start, end, end_offset))
        self._remember(end_offset, end)
        return FileRegion(self.open_file or self.file, start, end - start)

    def _last_boundary(self, start: int, end: int, end_offset: int, max_bytes: int, min_one: bool) -> tuple[int, int]:
        """(position, offset) where the last whole batch ends that fits in `max_bytes` from `start`."""
        indexed = self.offset_index.boundary_before(start + max_bytes)
        # Of batches as large as clients like to make them, the first that does not fit is often the indexed one.
        header = header_at(self.file, indexed, end) if indexed > start >= self.header_order.unseen_end else None
        if header is not None and indexed + header.size_bytes > start + max_bytes:
            return indexed, header.base_offset
        headers = partial(self.headers, end=end, end_offset=end_offset)
        boundary, offset = end_of_fitting(headers, start, max(start, indexed), max_bytes, min_one)
        if min_one and boundary == start:
            raise CorruptBatchError(self.path(), start, "no whole batch begins here")
        return boundary, offset

    def _remember(self, offset: int, position: int) -> None:
        positions = self.positions
        if len(positions) >= MAX_REMEMBERED_POSITIONS and offset not in positions:
            del positions[next(iter(positions))]
        positions[offset] = position

    def _trusted_position_for(self, offset: int) -> int:
        """The index's answer, checked against the log: what it points to must look like a batch up to `offset`."""
        if not self.index_is_sound:
            self._check_or_rebuild_indexes()
        position = self.offset_index.position_for(offset)
        if position and not self._holds_batch_at(position, offset):
            self.rebuild_indexes(keep_in_memory=self.offset_index.in_memory)
            position = self.offset_index.position_for(offset)
        return position

    def _holds_batch_at(self, position: int, offset: int) -> bool:
        header = header_at(self.file, position, self.size)
        return header is not None and self.base_offset <= header.base_offset <= offset

    def next_offset(self) -> int:
        """One past the last batch's last offset, or the base offset while empty. CorruptBatchError for a bad tail."""
        position = self._trusted_position_for(self.base_offset + MAX_RELATIVE_OFFSET)
        offset, end = self.base_offset, position
        for found in self.headers(position):
            offset = found.header.last_offset + 1
            end = found.position + found.header.size_bytes
        if end != self.size:
            raise CorruptBatchError(self.path(), end, f"{self.size - end} bytes after the last whole batch")
        self._bytes_since_index_entry = self.size - self.offset_index.last()[1]
        return offset

    # Truncating and rebuilding.

    def reset_indexes(self) -> None:
        """Start both indexes anew, in memory."""
        self.offset_index.create()
        self.time_index.create()
        self.index_is_sound = True
        self._bytes_since_index_entry = 0
        self._first_timestamp = None
        self._max_timestamp = NO_TIMESTAMP
        self._offset_of_max_timestamp = self.base_offset
        self.positions.clear()

    def index_batch(self, position: int, header: BatchHeader) -> None:
        """Account for a batch that is in the log already, as `append` does for one it writes."""
        last_offset = header.last_offset
        self.index_append(position, header.size_bytes, last_offset, header.max_timestamp, last_offset)

    def index_append(self, position: int, size: int, last_offset: int, max_timestamp: int, its_offset: int) -> None:
        """The same for batches that stand together, of which the one that ends at `its_offset` has the timestamp."""
        if max_timestamp > self.max_timestamp:
            self._max_timestamp, self._offset_of_max_timestamp = max_timestamp, its_offset
        if self._bytes_since_index_entry > self.index_interval_bytes:
            self._add_index_entry(last_offset, position)
        self._bytes_since_index_entry += size

    def rebuild_indexes(self, keep_in_memory: bool) -> None:
        """Write the indexes anew from the log, up to what is damaged: lookups behind it come by there, and say so."""
        _log.warning("rebuilding the indexes of %s", self.path())
        self.reset_indexes()
        try:
            for position, header in self.headers(0):
                self.index_batch(position, header)
        except CorruptBatchError as error:
            _log.warning("the indexes end where the log is damaged: %s", error)
        self._close_time_index()
        self.save_indexes()
        if not keep_in_memory:
            self.become_inactive()

    def _check_or_rebuild_indexes(self, load: bool = False) -> None:
        try:
            if not self.index_is_sound:
                self.offset_index.attach()
                self.time_index.attach()
            if load:
                self.offset_index.load()
                self.time_index.load()
            if not self.index_is_sound:
                self._check_last_entries()
        except CorruptIndexError:
            self.rebuild_indexes(keep_in_memory=load)

    def _check_last_entries(self) -> None:
        """Compare the last entries, which matter most, with the log. Raises CorruptIndexError."""
        last_offset, position = self.offset_index.last()
        if self.offset_index.count and not self._holds_batch_at(position, last_offset):
            raise CorruptIndexError(f"{self.offset_index.path} does not fit its log")
        self.index_is_sound = True
        timestamp, offset = self.time_index.last()
        if self.size and not self._has_max_timestamp(offset, timestamp):
            self.index_is_sound = False
            raise CorruptIndexError(f"{self.time_index.path} does not fit its log")

    def truncate_file(self, size: int) -> None:
        """Cut the .log file, durably: a later recovery may begin right behind the cut and trust what is before it."""
        self.file.truncate(size)
        self.file.sync()
        self.size = size
        self.header_order.forget(min(self.header_order.unseen_end, size))

    def truncate_to(self, offset: int) -> int:
        """Drop the batch that holds `offset` and everything behind it; the offset where the segment ends now."""
        self.become_active()
        found = self.find(offset)
        self.offset_index.truncate_to(offset)
        self.time_index.truncate_to(offset)
        self.txn_index.truncate_to(offset)
        self.positions.clear()
        if found is not None:
            self.truncate_file(found.position)
        self._max_timestamp, self._offset_of_max_timestamp = self.time_index.last()
        self._bytes_since_index_entry = 0
        if not self.size:
            self._first_timestamp = self._first_append_ms = None
        for _, header in self.headers(self.offset_index.last()[1]):
            if header.max_timestamp > self._max_timestamp:
                self._max_timestamp, self._offset_of_max_timestamp = header.max_timestamp, header.last_offset
            self._bytes_since_index_entry += header.size_bytes
        return offset if found is None else min(offset, found.header.base_offset)
