"""Snapshots of the producer state, which make restarts cheap (Kafka's ProducerStateManager, schema ProducerSnapshot).

`<offset>.snapshot` holds the state as of that offset, with only the last batch of each producer; a restart reads the
newest one and replays the batches behind it. One is taken at each roll and at a clean close. They are not synced: one
that a crash has torn does not match its CRC and is passed over.

The file is i16 version 1 | u32 CRC-32C of what follows | i32 count | for each producer: i64 producer id, i16 epoch,
i32 last sequence, i64 last offset, i32 offset delta, i64 timestamp, i32 coordinator epoch, i64 first offset of its open
transaction or -1.
"""

import logging
import struct
from collections.abc import Iterable

from fastcrc import crc32

from kpy.storage.fs import File, FileTooLargeError, Fs, read_file, remove_if_exists
from kpy.storage.producer_state import ProducedBatch, Producer, ProducerState

SNAPSHOT_SUFFIX = ".snapshot"
VERSION = 1

_HEAD = struct.Struct(">hIi")
_CRC_END = 6
_ENTRY = struct.Struct(">qhiqiqiq")

_log = logging.getLogger(__name__)


class CorruptSnapshotError(Exception):
    """A snapshot file that cannot be used; an older one, or the log itself, is."""


class Snapshots:
    """The snapshot files in a log's directory. `offsets` rise."""

    def __init__(self, fs: Fs, directory: str, names: Iterable[str] = ()) -> None:
        self._fs = fs
        self._directory = directory
        digits = [name.removesuffix(SNAPSHOT_SUFFIX) for name in names if name.endswith(SNAPSHOT_SUFFIX)]
        self.offsets = sorted(int(each) for each in digits if each.isascii() and each.isdigit())

    def path(self, offset: int) -> str:
        return f"{self._directory}/{offset:020d}{SNAPSHOT_SUFFIX}"

    def moved_to(self, directory: str) -> None:
        self._directory = directory

    def take(self, offset: int, state: ProducerState) -> None:
        """Write the state as of `offset`, unless that has been done."""
        if offset not in self.offsets:
            write_snapshot(self._fs, self.path(offset), state.producers.values())
            self.offsets = sorted([*self.offsets, offset])

    def load_newest(self, state: ProducerState, log_start_offset: int, limit: int) -> None:
        """Start `state` from the newest usable snapshot in (log start, limit], or empty at the log start.

        Unusable snapshots are removed.
        """
        for offset in reversed(self.offsets):
            if log_start_offset < offset <= limit:
                try:
                    state.load(read_snapshot(self._fs, self.path(offset)), offset)
                    return
                except CorruptSnapshotError as error:
                    _log.warning("passing over a producer snapshot: %s", error)
                    self._remove([offset])
        state.clear(log_start_offset)

    def keep_only(self, base_offsets: Iterable[int]) -> None:
        """Remove all but those at segment boundaries and the newest one."""
        kept = {*base_offsets, *self.offsets[-1:]}
        self._remove([offset for offset in self.offsets if offset not in kept])

    def remove_from(self, offset: int) -> None:
        """Remove those at and above `offset`."""
        self._remove([each for each in self.offsets if each >= offset])

    def _remove(self, offsets: list[int]) -> None:
        for offset in offsets:
            remove_if_exists(self._fs, self.path(offset))
        self.offsets = [offset for offset in self.offsets if offset not in offsets]


def write_snapshot(fs: Fs, path: str, producers: Iterable[Producer]) -> None:
    """Write a snapshot file, over what may be there."""
    entries = [
        _ENTRY.pack(
            each.producer_id,
            each.epoch,
            each.last_sequence,
            each.last_data_offset,
            each.batches[-1].offset_delta if each.batches else 0,
            each.last_timestamp,
            each.coordinator_epoch,
            each.current_txn_first_offset,
        )
        for each in producers
    ]
    body = struct.pack(">i", len(entries)) + b"".join(entries)
    file = File(fs, path, create=True)
    file.truncate(0)
    file.write(struct.pack(">hI", VERSION, crc32.iscsi(body)) + body, 0)


def read_snapshot(fs: Fs, path: str) -> list[Producer]:
    """The producers in a snapshot file. Raises CorruptSnapshotError."""
    try:
        data = read_file(fs, path)
    except FileTooLargeError as error:
        raise CorruptSnapshotError(str(error)) from error
    if len(data) < _HEAD.size:
        raise CorruptSnapshotError(f"{path} has only {len(data)} bytes")
    version, crc, count = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CorruptSnapshotError(f"{path} has unknown version {version}")
    if crc32.iscsi(data[_CRC_END:]) != crc:
        raise CorruptSnapshotError(f"{path} does not match its CRC")
    if len(data) != _HEAD.size + count * _ENTRY.size:
        raise CorruptSnapshotError(f"{path} has {len(data)} bytes for {count} producers")
    producers: list[Producer] = []
    for fields in _ENTRY.iter_unpack(data[_HEAD.size :]):
        producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator_epoch, first_offset = fields
        producer = Producer(producer_id, epoch, coordinator_epoch, timestamp)
        producer.current_txn_first_offset = first_offset
        if last_offset >= 0:
            producer.batches.append(ProducedBatch(last_sequence, last_offset, delta, timestamp))
        producers.append(producer)
    return producers
