"""Whether a segment's offset index and time index agree with its log.

Both are followed entry by entry while somebody walks over the batches, so that neither file need be in memory. The
walker calls `meet` when it comes to a batch that the next entry is about: `due_position` and `due_offset` say when.
The first thing that is wrong with an index is all that is said of it, since it is rebuilt whole.

An entry of the offset index was made for an append, which is one batch at a leader, several at a follower or after
compaction: its offset is the last one of the append, its position where the append begins. Compaction may leave an
offset below the end of its batch. An entry of the time index is the largest timestamp so far, and an offset in the
batch that brought it.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kpy.records.batch import NO_TIMESTAMP, BatchHeader
from kpy.storage.fs import File, Fs
from kpy.storage.index import OFFSET_ENTRY, TIME_ENTRY
from kpy.storage.log_config import LONG_MAX

_ENTRIES_AT_ONCE = 4096


class IndexFault(NamedTuple):
    """What is wrong with an index, and at which byte of it."""

    position: int
    what: str


def read_entries(fs: Fs, path: str, layout: struct.Struct) -> Iterator[tuple[int, int, int]]:
    """(position in the file, first value, second value) of each entry; a last one that is cut short is not given."""
    file, position = File(fs, path), 0
    while data := file.read(_ENTRIES_AT_ONCE * layout.size, position):
        whole = len(data) - len(data) % layout.size
        for first, second in layout.iter_unpack(data[:whole]):
            yield position, first, second
            position += layout.size
        if whole < len(data):
            return


class _IndexCheck:
    """What both indexes have in common. `fault` is the first thing that is wrong."""

    def __init__(self, fs: Fs, path: str, layout: struct.Struct) -> None:
        self.path = path
        self.fault: IndexFault | None = None
        self.padding_position: int | None = None
        """Where zeros begin that a running Apache Kafka allocates ahead."""
        self.due_position = LONG_MAX
        self.due_offset = LONG_MAX
        try:
            size = fs.size(path)
        except FileNotFoundError:
            self.fault = IndexFault(0, "is missing")
            self._entries = iter(())
            return
        if size % layout.size:
            self.fault = IndexFault(size - size % layout.size, f"has {size} bytes, not a multiple of {layout.size}")
        self._entries = read_entries(fs, path, layout)

    def _next(self) -> tuple[int, int, int] | None:
        """The next entry; None at the end, where there may be padding."""
        entry = next(self._entries, None)
        if entry is not None and not entry[1] and not entry[2]:
            self.padding_position = entry[0]
            if any(first or second for _, first, second in self._entries):
                self._stop(IndexFault(entry[0], "has zeros between its entries"))
            return None
        return entry

    def _stop(self, fault: IndexFault) -> None:
        self.fault = self.fault or fault
        self.due_position = self.due_offset = LONG_MAX


class OffsetIndexCheck(_IndexCheck):
    """Follows an offset index."""

    def __init__(self, fs: Fs, path: str, base_offset: int) -> None:
        super().__init__(fs, path, OFFSET_ENTRY)
        self._base_offset = base_offset
        self._entry = (-1, -1, -1)
        self._open_slot = 0
        self.inexact_slot: int | None = None
        """The first entry whose offset lies below the end of its batch, as only compaction leaves one."""
        self._advance()

    def _advance(self) -> None:
        """Take the next entry, which must be above the one before in both columns."""
        entry = self._next()
        if entry is None:
            self.due_position = LONG_MAX
            return
        at, relative_offset, position = entry
        if relative_offset <= self._entry[1] or position <= self._entry[2]:
            self._stop(IndexFault(at, f"has an entry out of order, for offset {self._base_offset + relative_offset}"))
            return
        self._entry = entry
        self.due_position = position

    def meet(self, position: int, header: BatchHeader) -> None:
        """The walk has come to a batch at or behind `due_position`, or with offsets up to `due_offset` or above."""
        last_offset = header.last_offset
        if position >= self.due_position:
            at, relative_offset, indexed = self._entry
            offset = self._base_offset + relative_offset
            if position > indexed:
                return self._stop(
                    IndexFault(at, f"points to byte {indexed}, where no batch begins, for offset {offset}")
                )
            if self.due_offset != LONG_MAX:
                return self._stop(IndexFault(self._open_slot, f"points to byte {indexed} for an offset behind it"))
            if header.base_offset > offset:
                what = (
                    f"points to byte {position} for offset {offset}, where a batch from {header.base_offset} on begins"
                )
                return self._stop(IndexFault(at, what))
            self.due_offset, self._open_slot = offset, at
            self._advance()
        if last_offset >= self.due_offset:
            if last_offset != self.due_offset and self.inexact_slot is None:
                self.inexact_slot = self._open_slot
            self.due_offset = LONG_MAX
        return None

    def finish(self) -> None:
        """The log is at its end."""
        if self.due_position != LONG_MAX:
            self._stop(IndexFault(self._entry[0], f"points to byte {self.due_position}, beyond the log"))
        elif self.due_offset != LONG_MAX:
            self._stop(IndexFault(self._open_slot, f"has an entry for offset {self.due_offset}, beyond the log"))


class TimeIndexCheck(_IndexCheck):
    """Follows a time index."""

    def __init__(self, fs: Fs, path: str, base_offset: int) -> None:
        super().__init__(fs, path, TIME_ENTRY)
        self._base_offset = base_offset
        self._entry = (-1, NO_TIMESTAMP, -1)
        self._advance()

    @property
    def last_timestamp(self) -> int:
        return self._entry[1]

    def _advance(self) -> None:
        entry = self._next()
        if entry is None:
            self.due_offset = LONG_MAX
            return
        at, timestamp, relative_offset = entry
        if timestamp <= self._entry[1] or relative_offset <= self._entry[2]:
            self._stop(IndexFault(at, f"has an entry out of order, for timestamp {timestamp}"))
            return
        self._entry = entry
        self.due_offset = self._base_offset + relative_offset

    def meet(self, header: BatchHeader, max_timestamp: int) -> None:
        """The walk has come to a batch with offsets up to `due_offset` or above, and to `max_timestamp` so far."""
        at, timestamp, _ = self._entry
        if header.base_offset > self.due_offset:
            return self._stop(IndexFault(at, f"has an entry for offset {self.due_offset}, which no batch holds"))
        if not header.max_timestamp == timestamp == max_timestamp:
            what = f"says that timestamps reach {timestamp} at offset {self.due_offset}, where it is {max_timestamp}"
            return self._stop(IndexFault(at, what))
        return self._advance()

    def finish(self, max_timestamp: int, is_complete: bool) -> None:
        """The log is at its end. A complete index, one that does not grow any more, ends with the largest timestamp."""
        if self.due_offset != LONG_MAX:
            self._stop(IndexFault(self._entry[0], f"has an entry for offset {self.due_offset}, beyond the log"))
        elif is_complete and max_timestamp > max(self.last_timestamp, NO_TIMESTAMP):
            self._stop(
                IndexFault(
                    self._entry[0] + TIME_ENTRY.size if self._entry[0] >= 0 else 0,
                    f"ends with timestamp {self.last_timestamp}, the log with {max_timestamp}",
                )
            )
