"""The files of a log, read as what they hold: batches and messages of segments, entries of everything else.

Nothing is decoded twice: the readers are those of kpy.storage. What cannot be read comes as a `Damage`, and behind
damage in a segment the reading goes on at the next sound batch.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from kpy import ids
from kpy.errors import StorageError
from kpy.records.batch import LOG_OVERHEAD, MAX_DECOMPRESSED_BYTES, BatchHeader, Record, iter_records
from kpy.records.legacy import iter_messages
from kpy.storage import checkpoints
from kpy.storage.fs import File, Fs, read_file
from kpy.storage.index import OFFSET_ENTRY, TIME_ENTRY, TXN_ENTRY, CorruptIndexError, read_txns
from kpy.storage.index_check import read_entries
from kpy.storage.log_directory import CLEAN_SHUTDOWN, META_PROPERTIES, PARTITION_DIR, LogDirectory
from kpy.storage.scan import CorruptBatchError, find_sound_batch, magic_of_message, scan_checked
from kpy.storage.segment_files import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    SWAP_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    parse_base_offset,
)
from kpy.storage.snapshots import SNAPSHOT_SUFFIX, CorruptSnapshotError, read_snapshot

_STATE_SUFFIX: Final = re.compile(rf"({DELETED_SUFFIX}|{CLEANED_SUFFIX}|{SWAP_SUFFIX})$".replace(".", r"\."))
_DELETED_DIR: Final = re.compile(r"\.[0-9a-f]{32}-(delete|future|stray)$")


class Batch(NamedTuple):
    """A batch of magic 2. `data` are its bytes, None where they are too many to be held without need."""

    position: int
    header: BatchHeader
    is_crc_right: bool
    data: memoryview | None


class Message(NamedTuple):
    """An intact message of magic 0 or 1, which may be a compressed set of them."""

    position: int
    data: memoryview


class Entry(NamedTuple):
    """Whatever else a file holds. `position` is None in files of text."""

    kind: str
    position: int | None
    fields: dict[str, Any]


class Damage(NamedTuple):
    """Bytes that are not what they should be, from `position` on."""

    position: int | None
    what: str
    is_incomplete: bool = False
    """Nothing need be wrong with it: the broker may be writing it."""


Item = Batch | Message | Entry | Damage


class LogFile:
    """One file, and what its name says of it. `kind` is empty if it is no file of a log."""

    def __init__(self, fs: Fs, path: str) -> None:
        self.fs = fs
        self.path = path
        self.directory, self.name = os.path.split(os.path.abspath(path))
        name = _STATE_SUFFIX.sub("", self.name)
        self.base_offset = parse_base_offset(name)
        suffix = os.path.splitext(name)[1]
        self.kind, self._read = _TEXT_FILES.get(name, ("", None))
        if self.base_offset is not None and suffix in _BINARY_FILES:
            self.kind, self._read = _BINARY_FILES[suffix]

    @property
    def topic(self) -> str:
        """The topic of the partition in whose directory the file is; empty if it is in none."""
        match = PARTITION_DIR.fullmatch(_DELETED_DIR.sub("", os.path.basename(self.directory)))
        return match[1] if match is not None else ""

    def items(self) -> Iterator[Item]:
        """Everything in the file. Raises OSError."""
        assert self._read is not None, "whoever reads has looked at the kind"
        return self._read(self)


def records_of(batch: Batch, file: File) -> Iterator[Record]:
    """The records of a sound batch. Raises ApiError for what cannot be decompressed or read."""
    data = batch.data
    if data is None:
        size = min(batch.header.size_bytes, MAX_DECOMPRESSED_BYTES)
        data = memoryview(file.read(size, batch.position))
    return iter_records(data)


def records_in(message: Message) -> Iterator[Record]:
    """The records of a message, with their offsets: the last one has the message's. Raises ApiError."""
    offset = int.from_bytes(message.data[:8], signed=True)
    records = list(iter_messages(message.data, len(message.data)))
    for index, record in enumerate(records):
        yield record._replace(offset=offset - len(records) + 1 + index)


# Segments -------------------------------------------------------------------------------------------------------------


def _segment(log: LogFile) -> Iterator[Item]:
    file, path, end = File(log.fs, log.path), log.path, log.fs.size(log.path)
    position, next_offset = 0, log.base_offset or 0
    while position < end:
        problem = ""
        try:
            for found in scan_checked(file, path, position, end):
                yield Batch(*found)
                position = found.position + LOG_OVERHEAD + found.header.batch_length
                next_offset = max(next_offset, found.header.base_offset + 1)
        except CorruptBatchError as error:
            problem = str(error).removeprefix(f"{path} at position {position}: ")
        if magic_of_message(file, position, end) is not None:
            size = LOG_OVERHEAD + int.from_bytes(file.read(4, position + 8))
            yield Message(position, memoryview(file.read(size, position)))
            position += size
        elif position < end:
            damage, position = _damage(file, path, (position, end), next_offset, problem)
            yield damage


def _damage(file: File, path: str, rest: tuple[int, int], next_offset: int, problem: str) -> tuple[Damage, int]:
    """What begins at a position where no whole batch does, and where to go on."""
    position, end = rest
    behind = find_sound_batch(file, path, position + 1, end, next_offset)
    if behind is not None:
        what = problem or "a batch that would reach beyond the end"
        return Damage(position, f"{what}; the next sound one is at byte {behind.position}"), behind.position
    size = f"{end - position:,} bytes"
    if problem:
        return Damage(position, f"{problem}, nor does any sound one in the {size} from here on"), end
    return Damage(position, f"{size} of an incomplete batch: it is being written, or was cut off", True), end


# Indexes and snapshots ------------------------------------------------------------------------------------------------


def _index(log: LogFile) -> Iterator[Item]:
    """Offset indexes and time indexes. The zeros that a running Apache Kafka allocates ahead are not entries."""
    is_offsets = log.kind == "offset index"
    layout = OFFSET_ENTRY if is_offsets else TIME_ENTRY
    base_offset, size = log.base_offset or 0, log.fs.size(log.path)
    for position, first, second in read_entries(log.fs, log.path, layout):
        if not first and not second:
            yield Entry("preallocated", position, {"size_bytes": size - position})
            return
        if is_offsets:
            yield Entry("offset index entry", position, {"offset": base_offset + first, "position": second})
        else:
            yield Entry("time index entry", position, {"timestamp": first, "offset": base_offset + second})
    if size % layout.size:
        yield Damage(size - size % layout.size, f"{size % layout.size} bytes are less than an entry")


def _txn_index(log: LogFile) -> Iterator[Item]:
    try:
        txns = read_txns(log.fs, log.path, log.base_offset or 0)
    except CorruptIndexError as error:
        yield Damage(None, _without_path(error, log.path))
        return
    for slot, txn in enumerate(txns):
        yield Entry("aborted transaction", slot * TXN_ENTRY.size, txn._asdict())


def _snapshot(log: LogFile) -> Iterator[Item]:
    try:
        producers = read_snapshot(log.fs, log.path)
    except CorruptSnapshotError as error:
        yield Damage(None, _without_path(error, log.path))
        return
    for producer in producers:
        fields = {
            "producer_id": producer.producer_id,
            "producer_epoch": producer.epoch,
            "coordinator_epoch": producer.coordinator_epoch,
            "current_txn_first_offset": producer.current_txn_first_offset,
            "last_timestamp": producer.last_timestamp,
            "last_sequence": producer.last_sequence,
            "last_offset": producer.last_data_offset,
            "offset_delta": producer.batches[-1].offset_delta if producer.batches else 0,
        }
        yield Entry("producer", None, fields)


# Files of text --------------------------------------------------------------------------------------------------------


def _epochs(log: LogFile) -> Iterator[Item]:
    for epoch, start_offset in checkpoints.read_epochs(log.fs, log.path):
        yield Entry("leader epoch", None, {"epoch": epoch, "start_offset": start_offset})


def _offsets(log: LogFile) -> Iterator[Item]:
    for (topic, partition), offset in checkpoints.read_offsets(log.fs, log.path).items():
        yield Entry("checkpoint", None, {"topic": topic, "partition": partition, "offset": offset})


def _topic_id(log: LogFile) -> Iterator[Item]:
    topic_id = checkpoints.read_topic_id(log.fs, log.path)
    yield Entry("topic id", None, {"topic_id": ids.to_text(topic_id)})


def _meta(log: LogFile) -> Iterator[Item]:
    meta = LogDirectory(log.fs, log.directory).read_meta()
    if meta is not None:
        yield Entry("identity", None, meta._asdict())


def _clean_shutdown(log: LogFile) -> Iterator[Item]:
    yield Entry("clean shutdown", None, {"content": read_file(log.fs, log.path).decode("utf-8", "replace")})


def _whole(read: Callable[[LogFile], Iterator[Item]]) -> Callable[[LogFile], Iterator[Item]]:
    """What reads a file at once, and gives its entries or says that it is damaged."""

    def guarded(log: LogFile) -> Iterator[Item]:
        try:
            yield from read(log)
        except (StorageError, ValueError) as error:
            yield Damage(None, _without_path(error, log.path))

    return guarded


def _without_path(error: Exception, path: str) -> str:
    return str(error).removeprefix(path).strip()


_Read = Callable[[LogFile], Iterator[Item]]
_BINARY_FILES: Final[dict[str, tuple[str, _Read]]] = {
    LOG_SUFFIX: ("segment", _segment),
    OFFSET_INDEX_SUFFIX: ("offset index", _index),
    TIME_INDEX_SUFFIX: ("time index", _index),
    TXN_INDEX_SUFFIX: ("transaction index", _txn_index),
    SNAPSHOT_SUFFIX: ("producer snapshot", _snapshot),
}
_TEXT_FILES: Final[dict[str, tuple[str, _Read | None]]] = {
    checkpoints.LEADER_EPOCHS: ("leader epochs", _whole(_epochs)),
    checkpoints.PARTITION_METADATA: ("partition metadata", _whole(_topic_id)),
    checkpoints.RECOVERY_POINTS: ("recovery points", _whole(_offsets)),
    checkpoints.LOG_START_OFFSETS: ("log start offsets", _whole(_offsets)),
    checkpoints.HIGH_WATERMARKS: ("high watermarks", _whole(_offsets)),
    checkpoints.CLEANER_OFFSETS: ("cleaner offsets", _whole(_offsets)),
    META_PROPERTIES: ("identity of a data directory", _whole(_meta)),
    CLEAN_SHUTDOWN: ("mark of a clean shutdown", _whole(_clean_shutdown)),
}
