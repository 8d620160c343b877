"""Walking over the record batches in a .log file, by their headers alone or with their records."""

from collections.abc import Iterator
from typing import NamedTuple

from kpy.records.batch import HEADER_SIZE, LOG_OVERHEAD, MAGIC, BatchHeader, read_header
from kpy.storage.fs import File

MIN_BATCH_LENGTH = HEADER_SIZE - LOG_OVERHEAD
SCAN_BYTES = 16 * 1024
"""Read at once while walking over headers."""
REPLAY_BYTES = 1 << 20
"""Read at once while walking over whole batches."""


class CorruptBatchError(Exception):
    """Bytes in a .log file that are no batch of magic 2. `position` is where it should begin."""

    def __init__(self, path: str, position: int, what: str) -> None:
        super().__init__(f"{path} at position {position}: {what}")
        self.position = position


class Found(NamedTuple):
    """A batch in a file."""

    position: int
    header: BatchHeader


def scan_headers(file: File, path: str, position: int, end: int) -> Iterator[Found]:
    """Each complete batch between the batch boundary `position` and `end`; a tail that is cut short is not given.

    Raises CorruptBatchError for a length or magic that no batch has. CRCs are not checked.
    """
    chunk, chunk_start = b"", 0
    while end - position >= HEADER_SIZE:
        if not chunk_start <= position <= chunk_start + len(chunk) - HEADER_SIZE:
            chunk, chunk_start = file.read(min(SCAN_BYTES, end - position), position), position
            if len(chunk) < HEADER_SIZE:
                return
        header = read_header(chunk, position - chunk_start)
        if header.magic != MAGIC or header.batch_length < MIN_BATCH_LENGTH:
            what = f"no batch begins here (length {header.batch_length}, magic {header.magic})"
            raise CorruptBatchError(path, position, what)
        next_position = position + LOG_OVERHEAD + header.batch_length
        if next_position > end:
            return
        yield Found(position, header)
        position = next_position


def scan_batches(file: File, path: str, position: int, end: int) -> Iterator[tuple[BatchHeader, memoryview]]:
    """As `scan_headers`, with each batch's bytes, which are the caller's to keep."""
    chunk, chunk_start = memoryview(b""), position
    for found in scan_headers(file, path, position, end):
        size = found.header.size_bytes
        start = found.position - chunk_start
        if start + size > len(chunk):
            chunk_start, start = found.position, 0
            chunk = memoryview(file.read(max(size, min(REPLAY_BYTES, end - found.position)), chunk_start))
        yield found.header, chunk[start : start + size]
