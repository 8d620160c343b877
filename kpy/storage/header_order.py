"""Whether batches that come from the disk follow one another: found out before they are sent for the first time.

A base offset lies outside the CRC of its batch, so a consumer cannot tell that it is damaged and would take records for
others. What this process has appended is known to be right. What was in a file before, or comes back from the disk
because it had left the page cache, is walked over once, header by header, when a fetch first wants it. Of each segment
the longest run of batches that has been seen is remembered: sequential readers extend it, or follow in it.

A batch that begins where the one before it ends is right, and so is one that ends where the one behind it begins. Only
compaction leaves gaps on both sides; then its offsets must lie between those of its neighbours, as in scan.py.
"""

from struct import Struct

from kpy.records.batch import HEADER_SIZE, LOG_OVERHEAD, MAGIC
from kpy.storage.fs import File
from kpy.storage.index import OffsetIndex
from kpy.storage.scan import MIN_BATCH_LENGTH, SCAN_BYTES, CorruptBatchError, header_at, may_leave_gap

_HEAD = Struct(">qi4xb6xi")
"""Base offset, batch length, magic and last offset delta: what a walk looks at, in a fifth of the time of a header."""


class HeaderOrder:
    """What has been seen of one segment's batches since they came from the disk.

    `unseen_end` is the position above which all is of this process' own making, or has been seen.
    """

    __slots__ = ("_base_offset", "_end", "_index", "_next_offset", "_start", "unseen_end")

    def __init__(self, base_offset: int, index: OffsetIndex) -> None:
        self._base_offset = base_offset
        self._index = index
        self.forget(0)

    def forget(self, unseen_end: int) -> None:
        """The batches below `unseen_end` come from the disk, anew, or the segment was cut there."""
        self.unseen_end = unseen_end
        self._start = self._end = 0
        self._next_offset = self._base_offset
        """All batches from `_start` to `_end` have been seen, and the last one ends below `_next_offset`."""

    def check(self, file: File, path: str, size: int, wanted: tuple[int, int, int]) -> tuple[int, int]:
        """(position, offset) where the sound ones end of the batches that are wanted.

        These are given as their first position, their end, and the offset there; `size` is the segment's.
        CorruptBatchError if the first one is damaged.
        """
        start, end, end_offset = wanted
        if self._start <= start and end <= self._end:
            return end, end_offset
        if self._start <= start <= self._end:
            position, next_offset = self._end, self._next_offset
        else:
            position, next_offset = start, self._offset_before(file, start, size, end_offset if end == size else None)
        sound_end, next_offset = _walk(file, size, next_offset, (position, end, end_offset))
        if sound_end == start:
            raise CorruptBatchError(path, start, f"this batch cannot follow, at offset {next_offset}, the one before")
        self._remember(start, sound_end, next_offset)
        return (end, end_offset) if sound_end == end else (sound_end, next_offset)

    def _remember(self, start: int, end: int, next_offset: int) -> None:
        if self._start <= start <= self._end:
            self._end, self._next_offset = end, next_offset
        elif start < self._start <= end <= self._end:
            self._start = start
        elif end - start > self._end - self._start:
            self._start, self._end, self._next_offset = start, end, next_offset
        if self._start == 0 and self._end >= self.unseen_end:
            self.forget(0)

    def _offset_before(self, file: File, start: int, size: int, end_offset: int | None) -> int:
        """What the offset of the batch at `start` must not lie below, if nothing has been seen of what is before it.

        Its own, if the batch ends where the next one begins, or at the segment's `end_offset`. If not, it is damaged or
        compaction has left a gap behind it, and the batch before it is asked.
        """
        header = header_at(file, start, size)
        if header is None:
            return self._base_offset
        following = header_at(file, start + header.size_bytes, size)
        if header.last_offset + 1 == (end_offset if following is None else following.base_offset):
            return header.base_offset
        next_offset, position = self._base_offset, self._index.boundary_before(start - 1) if start else 0
        while position < start and (before := header_at(file, position, size)) is not None:
            position += before.size_bytes
            if position == start:
                next_offset = before.last_offset + 1
        return next_offset


def _walk(file: File, size: int, next_offset: int, wanted: tuple[int, int, int]) -> tuple[int, int]:
    """(position, offset) of the first batch that cannot follow; those of the end if all can."""
    position, end, end_offset = wanted
    unpack_from, head_bytes = _HEAD.unpack_from, _HEAD.size
    chunk, chunk_start = b"", position
    while position < end:
        at = position - chunk_start
        if at + head_bytes > len(chunk):
            chunk, chunk_start, at = file.read(min(SCAN_BYTES, size - position), position), position, 0
            if len(chunk) < HEADER_SIZE:
                break
        base_offset, length, magic, last_offset_delta = unpack_from(chunk, at)
        behind = position + LOG_OVERHEAD + length
        if magic != MAGIC or length < MIN_BATCH_LENGTH or behind > end:
            break
        if base_offset != next_offset:
            header = header_at(file, position, size)
            is_beyond = base_offset + last_offset_delta >= end_offset
            if header is None or is_beyond or not may_leave_gap(file, header, next_offset, behind, size):
                break
        next_offset = base_offset + last_offset_delta + 1
        position = behind
    return position, next_offset
