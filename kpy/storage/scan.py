"""Walking over the record batches in a .log file, by their headers alone or with their records."""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from kpy.records.batch import (
    ATTRIBUTES_POSITION,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_POSITION,
    BatchHeader,
    check_crc,
    read_header,
)
from kpy.storage.fs import File
from kpy.storage.log_config import LONG_MAX

MIN_BATCH_LENGTH = HEADER_SIZE - LOG_OVERHEAD
SCAN_BYTES = 16 * 1024
"""Read at once while walking over headers."""
REPLAY_BYTES = 1 << 20
"""Read at once while walking over whole batches."""


_MESSAGE_HEAD = struct.Struct(">qiIb")
_MESSAGE_CRC_END = 16


class CorruptBatchError(Exception):
    """Bytes in a .log file that are no batch of magic 2. `position` is where it should begin."""

    def __init__(self, path: str, position: int, what: str) -> None:
        super().__init__(f"{path} at position {position}: {what}")
        self.position = position


TakeRun = Callable[[memoryview, int], tuple[int, int]]
"""Deals with whole batches at the beginning of these bytes, the first of which can have this offset or a higher one, as
many as it likes. Returns how many bytes that were, and the same offset for what follows.
"""


class CheckedBatch(NamedTuple):
    """A batch in a file, and whether its CRC is right. `data` is None if it is larger than REPLAY_BYTES."""

    position: int
    header: BatchHeader
    is_crc_right: bool
    data: memoryview | None


class Found(NamedTuple):
    """A batch in a file."""

    position: int
    header: BatchHeader


def header_at(file: File, position: int, end: int) -> BatchHeader | None:
    """The header of what looks like a whole batch between `position` and `end`; None if nothing there does."""
    if not 0 <= position <= end - HEADER_SIZE:
        return None
    header = read_header(file.read(HEADER_SIZE, position))
    is_whole = MIN_BATCH_LENGTH <= header.batch_length <= end - position - LOG_OVERHEAD
    return header if header.magic == MAGIC and is_whole else None


def scan_headers(
    file: File, path: str, position: int, end: int, next_offset: int = 0, end_offset: int = LONG_MAX
) -> Iterator[Found]:
    """Each complete batch between the batch boundary `position` and `end`; a tail that is cut short is not given.

    Raises CorruptBatchError for a length or magic that no batch has, and for offsets that are not from `next_offset` up
    to `end_offset` or do not rise: base offsets lie outside the CRC, which is not checked either.
    """
    chunk, chunk_start = b"", 0
    while end - position >= HEADER_SIZE:
        if not chunk_start <= position <= chunk_start + len(chunk) - HEADER_SIZE:
            chunk, chunk_start = file.read(min(SCAN_BYTES, end - position), position), position
            if len(chunk) < HEADER_SIZE:
                return
        header = read_header(chunk, position - chunk_start)
        if header.magic != MAGIC or header.batch_length < MIN_BATCH_LENGTH:
            raise _no_batch(path, position, header)
        next_position = position + LOG_OVERHEAD + header.batch_length
        if header.base_offset != next_offset and (
            header.last_offset >= end_offset or not may_leave_gap(file, header, next_offset, next_position, end)
        ):
            raise _out_of_order(path, position, header)
        next_offset = header.base_offset + header.last_offset_delta + 1
        if next_position > end:
            return
        yield Found(position, header)
        position = next_position


def _no_batch(path: str, position: int, header: BatchHeader) -> CorruptBatchError:
    what = f"no batch begins here (length {header.batch_length}, magic {header.magic})"
    return CorruptBatchError(path, position, what)


def _out_of_order(path: str, position: int, header: BatchHeader) -> CorruptBatchError:
    what = f"offsets {header.base_offset} to {header.last_offset} contradict those around them"
    return CorruptBatchError(path, position, what)


def may_leave_gap(file: File, header: BatchHeader, next_offset: int, behind: int, end: int) -> bool:
    """Whether a batch can begin above `next_offset`, as it does in compacted logs.

    It cannot if the batch at the position `behind` it has an offset that lies in the gap or in this batch.
    """
    if header.base_offset < next_offset or header.last_offset_delta < 0:
        return False
    following = header_at(file, behind, end)
    return following is None or not next_offset <= following.base_offset <= header.last_offset


def end_of_fitting(
    headers: Callable[[int], Iterator[Found]], start: int, indexed: int, max_bytes: int, min_one_batch: bool
) -> tuple[int, int]:
    """(position, offset) where the last whole batch ends that fits in `max_bytes` from `start`; (start, -1) for none.

    `headers` walks from a batch boundary; `indexed` is the one to begin at, and if none is there, it begins at `start`.
    With `min_one_batch` the first batch fits. Ahead of a damaged batch the others are given, and if it is the first,
    CorruptBatchError is raised.
    """
    boundary, offset = start, -1
    try:
        for position, header in headers(indexed):
            batch_end = position + LOG_OVERHEAD + header.batch_length
            if batch_end > start + max_bytes and not (min_one_batch and position == start):
                if boundary < position:
                    boundary, offset = position, header.base_offset
                break
            boundary, offset = batch_end, header.last_offset + 1
            if batch_end >= start + max_bytes:
                break
    except CorruptBatchError:
        if boundary == start == indexed:
            raise
    if boundary == start < indexed:
        return end_of_fitting(headers, start, start, max_bytes, min_one_batch)
    return boundary, offset


def scan_batches(
    file: File, path: str, position: int, end: int, take_run: TakeRun | None = None
) -> Iterator[tuple[BatchHeader, memoryview]]:
    """As `scan_headers`, with each batch's bytes, which are the caller's to keep; but for what `take_run` takes."""
    chunk, chunk_start = memoryview(b""), position
    next_offset = 0
    while end - position >= HEADER_SIZE:
        start = position - chunk_start
        if start + HEADER_SIZE > len(chunk):
            chunk, chunk_start, start = memoryview(file.read(min(REPLAY_BYTES, end - position), position)), position, 0
            if len(chunk) < HEADER_SIZE:
                return
        if take_run is not None:
            taken_bytes, next_offset = take_run(chunk[start:], next_offset)
            if taken_bytes:
                position += taken_bytes
                continue
        header = read_header(chunk, start)
        if header.magic != MAGIC or header.batch_length < MIN_BATCH_LENGTH:
            raise _no_batch(path, position, header)
        size = LOG_OVERHEAD + header.batch_length
        next_position = position + size
        if header.base_offset != next_offset and not may_leave_gap(file, header, next_offset, next_position, end):
            raise _out_of_order(path, position, header)
        if next_position > end:
            return
        if start + size > len(chunk):
            chunk, chunk_start = memoryview(file.read(max(size, min(REPLAY_BYTES, end - position)), position)), position
            if len(chunk) < size:
                return
            continue
        next_offset = header.last_offset + 1
        yield header, chunk[start : start + size]
        position = next_position


def scan_checked(file: File, path: str, position: int, end: int) -> Iterator[CheckedBatch]:
    """Each complete batch between the batch boundary `position` and `end`, with what its CRC says.

    Raises CorruptBatchError for a length or magic that no batch has; whether offsets rise is left to the caller. Memory
    is bounded, whatever a damaged length promises.
    """
    chunk, chunk_start = memoryview(b""), position
    while end - position >= HEADER_SIZE:
        start = position - chunk_start
        if start + HEADER_SIZE > len(chunk):
            chunk, chunk_start, start = memoryview(file.read(min(REPLAY_BYTES, end - position), position)), position, 0
            if len(chunk) < HEADER_SIZE:
                return
        header = read_header(chunk, start)
        if header.magic != MAGIC or header.batch_length < MIN_BATCH_LENGTH:
            raise _no_batch(path, position, header)
        size = LOG_OVERHEAD + header.batch_length
        if position + size > end:
            return
        if start + size > len(chunk) and size <= REPLAY_BYTES:
            chunk, chunk_start, start = memoryview(file.read(min(REPLAY_BYTES, end - position), position)), position, 0
        if start + size <= len(chunk):
            data = chunk[start : start + size]
            yield CheckedBatch(position, header, check_crc(data), data)
        else:
            yield CheckedBatch(position, header, _crc_in(file, position, size) == header.crc, None)
        position += size


def _crc_in(file: File, position: int, size: int) -> int:
    """The CRC of a batch that is too large to be held in memory without need."""
    crc, end = 0, position + size
    position += ATTRIBUTES_POSITION
    while position < end and (data := file.read(min(REPLAY_BYTES, end - position), position)):
        crc = crc32c(data, crc)
        position += len(data)
    return crc


def find_sound_batch(file: File, path: str, position: int, end: int, next_offset: int) -> CheckedBatch | None:
    """The first batch from `position` on, wherever it begins, that has a right CRC and an offset from `next_offset` on.

    What is lost between two damaged bytes ends there. The upper half of its offset must be that of `next_offset`,
    which makes the search quick and misses only a batch that crosses a multiple of 2^32.
    """
    likely = re.compile(
        b"(?=%b.{%d}%c)" % (re.escape((next_offset >> 32).to_bytes(4)), MAGIC_POSITION - 4, MAGIC), re.DOTALL
    )
    while end - position >= HEADER_SIZE:
        chunk = file.read(min(REPLAY_BYTES, end - position), position)
        for match in likely.finditer(chunk):
            start = position + match.start()
            header = header_at(file, start, end)
            if header is not None and header.base_offset >= next_offset and header.last_offset_delta >= 0:
                found = next(scan_checked(file, path, start, start + header.size_bytes), None)
                if found is not None and found.is_crc_right:
                    return found
        position += max(1, len(chunk) - MAGIC_POSITION)
    return None


def magic_of_message(file: File, position: int, end: int) -> int | None:
    """The magic of the intact message of an old format that begins at `position`; None if there is none."""
    head = file.read(_MESSAGE_HEAD.size, position)
    if len(head) < _MESSAGE_HEAD.size:
        return None
    _, size, crc, magic = _MESSAGE_HEAD.unpack(head)
    if magic not in (0, 1) or not 0 < size <= end - position - LOG_OVERHEAD:
        return None
    checked = file.read(size + LOG_OVERHEAD - _MESSAGE_CRC_END, position + _MESSAGE_CRC_END)
    return magic if zlib.crc32(checked) == crc else None
