"""Reads that would wait for the disk are found out before they are made, so that a thread can make them.

A Fetch is answered by the thread that serves all clients: what it reads must be in the page cache, or everybody waits
for one consumer of old records. `cold_read` asks whether all that `Log.read` will look at is there: the records
themselves, and what finds them. If not, it gives a job that reads all of it in a worker thread, on descriptors and
objects of its own, and keeps nothing: afterwards the log's own thread reads once more and finds it in the page cache.
A consumer that waited at the end of a log reads what has just been written: then the kernel is not asked.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

from kpy.storage.fs import File, FileRegion, read_file
from kpy.storage.index import MAX_INDEX_BYTES, CorruptIndexError
from kpy.storage.log import Log
from kpy.storage.scan import SCAN_BYTES, CorruptBatchError, scan_headers
from kpy.storage.segment import Segment
from kpy.storage.segment_files import OFFSET_INDEX_SUFFIX

READ_AT_ONCE_BYTES = 1 << 20


class ColdRead(NamedTuple):
    """`run` brings about `size_bytes` into the page cache, in a worker thread. Raises OSError when the disk fails."""

    log: Log
    size_bytes: int
    run: Callable[[], None]


def cold_read(
    log: Log, offset: int, max_bytes: int, max_offset: int, *, was_just_appended: bool = False
) -> ColdRead | None:
    """What must be read in before `log.read` with these arguments; None when all of it is in the page cache.

    With `was_just_appended` the records are known to be there, and only the way to find them is in question.
    """
    if offset >= max_offset or not log.log_start_offset <= offset < log.log_end_offset or log.is_offline:
        return None
    segments = [segment for segment, _ in log.segments_from(offset)]
    for slot, segment in enumerate(segments):
        start = 0 if offset == segment.base_offset else segment.positions.get(offset)
        if start is None or not (was_just_appended or _is_cached(segment, start, max_bytes)):
            if not was_just_appended:
                segment.header_order.forget(segment.size)
            return ColdRead(log, max_bytes, _job(segments[slot:], start, offset, max_bytes))
        if start < segment.size:
            return None
    return None


def cold_region(log: Log, region: FileRegion) -> ColdRead | None:
    """The same for a region that was given already, as one is that is larger than was asked for."""
    if region.file.is_cached(region.position, region.size):
        return None
    end = region.position + region.size
    return ColdRead(log, region.size, partial(_read_through, region.file, region.position, end))


def _is_cached(segment: Segment, start: int, max_bytes: int) -> bool:
    ahead = segment.size - start
    if segment.open_file is None or not segment.index_is_sound:
        return False
    if ahead > max_bytes and not segment.offset_index.knows_boundary_before(start + max_bytes):
        return False
    # A little more than is sent, because the search for the last whole batch reads that far.
    return ahead <= 0 or segment.open_file.is_cached(start, min(ahead, max_bytes + SCAN_BYTES))


def _job(segments: list[Segment], start: int | None, offset: int, max_bytes: int) -> Callable[[], None]:
    first = segments[0]
    if first.offset_index.in_memory:
        # Only the active segment's index is, and its file is behind.
        position = first.offset_index.position_for(offset) if start is None else start
        return partial(_read_in_active, first, first.open_file, position, first.size, offset, max_bytes)
    again = [
        partial(_ReadOnlySegment.attach, each.fs, each.files.directory, each.base_offset, each.index_interval_bytes)
        for each in segments
    ]
    return partial(_read_in_inactive, again, offset, max_bytes)


def _read_in_active(segment: Segment, file: File | None, position: int, end: int, offset: int, max_bytes: int) -> None:
    try:
        file = file or File(segment.fs, segment.path())
        for found in scan_headers(file, segment.path(), position, end):
            if found.header.last_offset >= offset:
                size = max(max_bytes, found.header.size_bytes)
                _read_through(file, found.position, min(end, found.position + size + SCAN_BYTES))
                return
    except (FileNotFoundError, CorruptBatchError):
        return  # Whoever owns the log meets the same and knows what to do.


def _read_in_inactive(segments: Sequence[Callable[[], Segment]], offset: int, max_bytes: int) -> None:
    try:
        for attach in segments:
            segment = attach()
            read_file(segment.fs, segment.path(OFFSET_INDEX_SUFFIX), MAX_INDEX_BYTES)
            found = segment.find(offset)
            if found is not None:
                size = max(max_bytes, found.header.size_bytes)
                _read_through(segment.file, found.position, min(segment.size, found.position + size + SCAN_BYTES))
                return
    except (FileNotFoundError, CorruptBatchError, CorruptIndexError):
        return  # Whoever owns the log meets the same and knows what to do.


def _read_through(file: File, position: int, end: int) -> None:
    while position < end and (data := file.read(min(READ_AT_ONCE_BYTES, end - position), position)):
        position += len(data)


class _ReadOnlySegment(Segment):
    """A segment's files once more, in another thread than its owner's: nothing is mended here."""

    __slots__ = ()

    def rebuild_indexes(self, keep_in_memory: bool) -> NoReturn:
        raise CorruptIndexError(f"{self.path()} needs new indexes")
