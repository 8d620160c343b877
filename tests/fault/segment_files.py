"""Whether the files of a partition fit each other, read as kafka-dump-log reads them, without any of kpy's storage."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from kpy.records.batch import BatchHeader, check_crc, iter_batches

Read = Callable[[str], bytes]


class SegmentFaultError(AssertionError):
    """Something in the files that kafka-dump-log would complain of."""


class _Placed(NamedTuple):
    position: int
    header: BatchHeader


def check_segment_files(names: Iterable[str], read: Read) -> int:
    """Check every .log, .index and .timeindex among `names`; how many batches there are. Raises SegmentFaultError."""
    present = sorted(names)
    next_offset = -1
    count = 0
    for name in present:
        if not name.endswith(".log"):
            continue
        base = int(name.removesuffix(".log"))
        batches = _batches(name, read(name))
        for _, header in batches:
            if header.base_offset < max(base, next_offset):
                raise SegmentFaultError(f"{name}: offset {header.base_offset} after {next_offset}")
            next_offset = header.last_offset + 1
        stem = name.removesuffix(".log")
        _check_offset_index(f"{stem}.index", base, batches, read)
        _check_time_index(f"{stem}.timeindex", base, batches, read)
        count += len(batches)
    return count


def check_directory(directory: Path) -> int:
    """`check_segment_files` of a partition's directory on the real disk."""
    names = [path.name for path in directory.iterdir()]
    leftovers = [name for name in names if name.endswith((".cleaned", ".swap"))]
    if leftovers:
        raise SegmentFaultError(f"{directory} still has {leftovers}")
    return check_segment_files(names, lambda name: (directory / name).read_bytes())


def _batches(name: str, data: bytes) -> list[_Placed]:
    found: list[_Placed] = []
    position = 0
    for header, batch in iter_batches(data):
        if not check_crc(batch):
            raise SegmentFaultError(f"{name}: bad CRC at {position}")
        found.append(_Placed(position, header))
        position += header.size_bytes
    if position != len(data):
        raise SegmentFaultError(f"{name}: {len(data) - position} bytes after the last batch")
    return found


def _check_offset_index(name: str, base: int, batches: list[_Placed], read: Read) -> None:
    starts = {position: header for position, header in batches}
    previous = -1
    for relative_offset, position in struct.iter_unpack(">ii", read(name)):
        header = starts.get(position)
        if header is None or header.last_offset != base + relative_offset:
            raise SegmentFaultError(f"{name}: no batch at {position} ends in {base + relative_offset}")
        if relative_offset <= previous:
            raise SegmentFaultError(f"{name}: {relative_offset} after {previous}")
        previous = relative_offset


def _check_time_index(name: str, base: int, batches: list[_Placed], read: Read) -> None:
    previous = -1
    for timestamp, relative_offset in struct.iter_unpack(">qi", read(name)):
        offset = base + relative_offset
        holder = next((header for _, header in batches if header.last_offset >= offset), None)
        if holder is None or holder.max_timestamp != timestamp:
            raise SegmentFaultError(f"{name}: no batch holds {offset} with max timestamp {timestamp}")
        if timestamp <= previous:
            raise SegmentFaultError(f"{name}: time {timestamp} after {previous}")
        previous = timestamp
