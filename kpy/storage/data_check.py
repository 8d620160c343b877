"""What is wrong in data directories, Apache Kafka's or kpy's: identity, lock, checkpoints, and every partition."""

import fcntl
import os
import struct
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from kpy import ids
from kpy.errors import StorageError
from kpy.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    PARTITION_METADATA,
    RECOVERY_POINTS,
    TopicPartition,
    read_offsets,
    write_offsets,
)
from kpy.storage.findings import Finding, Severity
from kpy.storage.fs import Fs
from kpy.storage.log_config import LONG_MAX
from kpy.storage.log_directory import (
    CLEAN_SHUTDOWN,
    DELETE_SUFFIX,
    FUTURE_SUFFIX,
    LOCK,
    META_PROPERTIES,
    PARTITION_DIR,
    STRAY_SUFFIX,
    LogDirectory,
    Meta,
)
from kpy.storage.partition_check import PartitionCheck, PartitionFacts, PartitionSummary
from kpy.storage.segment_files import LOG_SUFFIX

CHECKPOINTS = (RECOVERY_POINTS, HIGH_WATERMARKS, LOG_START_OFFSETS, CLEANER_OFFSETS)
METADATA_FILE = "kpy-metadata.sqlite"
_COMPACTED_TOPICS = ("__consumer_offsets", "__transaction_state")

_LOST = {
    RECOVERY_POINTS: "after an unclean stop the next start reads every log from its beginning",
    HIGH_WATERMARKS: "high watermarks begin at the log starts until the replicas have caught up",
    LOG_START_OFFSETS: "records that were deleted by DeleteRecords may come back",
    CLEANER_OFFSETS: "compaction begins anew at the log starts",
}
_BEYOND = {
    RECOVERY_POINTS: "the next start takes the end instead",
    HIGH_WATERMARKS: "the next start takes the end instead",
    LOG_START_OFFSETS: "the next start removes the log's segments, and it begins anew there",
    CLEANER_OFFSETS: "nothing is compacted until the log has grown beyond it",
}

_STATE_SUFFIXES = {
    DELETE_SUFFIX: ("was deleted", "its files are removed after the next start"),
    FUTURE_SUFFIX: ("was about to be moved here from another data directory", ""),
    STRAY_SUFFIX: ("was found to belong to no topic", "it is left alone"),
}

_FLOCK = struct.Struct("hhqqi")


class DataSummary(NamedTuple):
    """What a check has read."""

    partitions: int = 0
    segments: int = 0
    batches: int = 0
    records: int = 0
    size_bytes: int = 0


def lock_holder(path: str) -> int | None:
    """The process that holds a data directory's lock; None if no other one does. Nothing is locked or created."""
    try:
        fd = os.open(f"{path}/{LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked)[: _FLOCK.size])
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else pid


def log_bytes(fs: Fs, paths: Sequence[str]) -> int:
    """The size of all .log files of all partitions, which is what there is to read."""
    total = 0
    for path in paths:
        for name in fs.list(path):
            if PARTITION_DIR.fullmatch(name) and fs.is_dir(f"{path}/{name}"):
                files = [f"{path}/{name}/{file}" for file in fs.list(f"{path}/{name}") if file.endswith(LOG_SUFFIX)]
                total += sum(fs.size(file) for file in files if fs.exists(file))
    return total


class DataCheck:
    """Checks the data directories of one broker. `summary` grows as `findings` goes on.

    `known_topic_ids` are those that the broker's metadata has, as far as they are at hand.
    """

    def __init__(
        self,
        fs: Fs,
        paths: Sequence[str],
        on_progress: Callable[[int], None],
        known_topic_ids: Mapping[str, bytes] | None = None,
    ) -> None:
        self._fs = fs
        self._paths = paths
        self._on_progress = on_progress
        self._known_topic_ids = known_topic_ids or {}
        self.summary = DataSummary()
        self._places: dict[TopicPartition, str] = {}
        self._topic_ids: dict[str, bytes] = {}
        self._topics: dict[bytes, str] = {}

    def findings(self) -> Iterator[Finding]:
        """Everything that is worth saying, one directory after the other. Raises OSError."""
        first: tuple[str, Meta] | None = None
        for path in self._paths:
            meta = yield from self._meta(path)
            if first is not None and meta is not None and meta != first[1]:
                what = f"is of broker {meta.broker_id} of cluster {meta.cluster_id}, unlike that in {first[0]}"
                yield Finding(Severity.ERROR, f"{path}/{META_PROPERTIES}", None, what, "the broker does not start")
            if first is None and meta is not None:
                first = path, meta
            yield from self._directory(path)

    # One data directory.

    def _meta(self, path: str) -> Generator[Finding, None, Meta | None]:
        file = f"{path}/{META_PROPERTIES}"
        try:
            meta = LogDirectory(self._fs, path).read_meta()
        except StorageError as error:
            yield _of_file(Severity.ERROR, file, error, "the broker does not start")
            return None
        if meta is None:
            outcome = "the next start makes a new one, of whatever broker and cluster"
            yield Finding(Severity.WARNING, file, None, "is missing", outcome)
        return meta

    def _directory(self, path: str) -> Iterator[Finding]:
        fs = self._fs
        holder = lock_holder(path)
        if holder is not None:
            what = f"is held by process {holder}: what it is writing may look unfinished"
            yield Finding(Severity.NOTE, f"{path}/{LOCK}", None, what)
        recovery_points = yield from self._checkpoint(path, RECOVERY_POINTS)
        starts = (yield from self._checkpoint(path, LOG_START_OFFSETS)) or {}
        cleaned = (yield from self._checkpoint(path, CLEANER_OFFSETS)) or {}
        high_watermarks = (yield from self._checkpoint(path, HIGH_WATERMARKS)) or {}
        compacted = {topic for topic, _ in cleaned}.union(_COMPACTED_TOPICS)
        of_all = PartitionFacts(
            is_live=holder is not None,
            is_clean=fs.exists(f"{path}/{CLEAN_SHUTDOWN}") and holder is None,
            on_progress=self._on_progress,
        )
        ends: dict[TopicPartition, int] = {}
        for name in sorted(fs.list(path)):
            match = PARTITION_DIR.fullmatch(name)
            if match is None or not fs.is_dir(f"{path}/{name}"):
                yield from self._other(path, name)
                continue
            key = match[1], int(match[2])
            facts = of_all._replace(
                recovery_point=None if recovery_points is None else recovery_points.get(key, 0),
                log_start_offset=starts.get(key, 0),
                may_have_gaps=key[0] in compacted,
            )
            ends[key] = yield from self._partition(f"{path}/{name}", key, facts)
        in_files = {
            RECOVERY_POINTS: recovery_points or {},
            LOG_START_OFFSETS: starts,
            CLEANER_OFFSETS: cleaned,
            HIGH_WATERMARKS: high_watermarks,
        }
        for name, offsets in in_files.items():
            yield from self._offsets(f"{path}/{name}", offsets, ends)

    def _partition(self, path: str, key: TopicPartition, facts: PartitionFacts) -> Generator[Finding, None, int]:
        """Check one partition; returns where its log ends, or LONG_MAX if that cannot be known."""
        check = PartitionCheck(self._fs, path, facts)
        try:
            yield from check.findings()
        except FileNotFoundError as error:
            if not facts.is_live:
                raise
            yield Finding(Severity.NOTE, str(error.filename), None, "went while it was to be read")
            return LONG_MAX
        except OSError as error:
            outcome = "a broker takes the data directory offline when it comes to it"
            yield Finding(Severity.ERROR, path, None, f"cannot be read: {error}", outcome)
            return LONG_MAX
        self._count(check.summary)
        yield from self._identity(path, key, check.summary.topic_id)
        return check.summary.end_offset

    def _count(self, of_partition: PartitionSummary) -> None:
        total = self.summary
        self.summary = DataSummary(
            total.partitions + 1,
            total.segments + of_partition.segments,
            total.batches + of_partition.batches,
            total.records + of_partition.records,
            total.size_bytes + of_partition.size_bytes,
        )

    def _other(self, path: str, name: str) -> Iterator[Finding]:
        """What is neither a partition nor a file that was read already."""
        own = name in (*CHECKPOINTS, META_PROPERTIES, LOCK, CLEAN_SHUTDOWN) or name.startswith(METADATA_FILE)
        state = next((each for each in _STATE_SUFFIXES if name.endswith(each)), None)
        if name.endswith(".tmp"):
            what = "was left by a file that was being replaced", "nobody reads it"
        elif state is not None and self._fs.is_dir(f"{path}/{name}"):
            what = _STATE_SUFFIXES[state]
        elif not own or self._fs.is_dir(f"{path}/{name}"):
            what = "is not of a data directory", "it is left alone"
        else:
            return
        yield Finding(Severity.NOTE, f"{path}/{name}", None, *what)

    def _identity(self, path: str, key: TopicPartition, topic_id: bytes) -> Iterator[Finding]:
        """Each partition is in one place, each topic has one id, and each id one topic."""
        topic = key[0]
        other_place = self._places.setdefault(key, path)
        if other_place != path:
            yield Finding(Severity.ERROR, path, None, f"is also in {other_place}", "the broker does not start")
        if topic_id == ids.ZERO_ID:
            return
        known_id = self._known_topic_ids.get(topic, topic_id)
        if known_id != topic_id:
            what = f"has the topic id {ids.to_text(topic_id)}, the broker's metadata has {ids.to_text(known_id)}"
            outcome = "the next start sets the log aside under a name that ends in -stray, and begins a new one"
            yield Finding(Severity.ERROR, f"{path}/{PARTITION_METADATA}", None, what, outcome)
            return
        other_id = self._topic_ids.setdefault(topic, topic_id)
        if other_id != topic_id:
            what = f"has the topic id {ids.to_text(topic_id)}, other partitions have {ids.to_text(other_id)}"
            yield Finding(Severity.ERROR, path, None, what, "one of them is of a deleted topic of this name")
        other_topic = self._topics.setdefault(topic_id, topic)
        if other_topic != topic:
            what = f"has the topic id {ids.to_text(topic_id)}, and so has {other_topic}"
            yield Finding(Severity.ERROR, path, None, what, "clients that ask by id get the wrong topic")

    # Checkpoints.

    def _checkpoint(self, path: str, name: str) -> Generator[Finding, None, dict[TopicPartition, int] | None]:
        """What a checkpoint says; None if it is lost."""
        file = f"{path}/{name}"
        repair = partial(self._rewrite, file, {})
        try:
            return read_offsets(self._fs, file)
        except StorageError as error:
            yield _of_file(Severity.WARNING, file, error, _LOST[name], repair)
        except FileNotFoundError:
            if name == RECOVERY_POINTS:
                yield Finding(Severity.WARNING, file, None, "is missing", _LOST[name], repair)
        return None

    def _offsets(
        self, path: str, offsets: dict[TopicPartition, int], ends: dict[TopicPartition, int]
    ) -> Iterator[Finding]:
        """Compare a checkpoint with the logs that are there."""
        name = os.path.basename(path)
        kept = {key: min(offset, ends[key]) for key, offset in offsets.items() if key in ends}
        repair = partial(self._rewrite, path, kept) if name != LOG_START_OFFSETS else None
        for (topic, partition), offset in offsets.items():
            end_offset = ends.get((topic, partition))
            if end_offset is None:
                yield Finding(Severity.NOTE, path, None, f"names {topic}-{partition}, which is not here")
            elif offset > end_offset or offset < 0:
                severity = Severity.ERROR if name == LOG_START_OFFSETS else Severity.WARNING
                what = f"says offset {offset} of {topic}-{partition}, which ends at {end_offset}"
                yield Finding(severity, path, None, what, _BEYOND[name], repair)

    def _rewrite(self, path: str, offsets: dict[TopicPartition, int]) -> str:
        write_offsets(self._fs, path, offsets)
        return f"written anew, with {len(offsets)} partitions"


def _of_file(
    severity: Severity, path: str, error: Exception, outcome: str, repair: Callable[[], str] | None = None
) -> Finding:
    return Finding(severity, path, None, str(error).removeprefix(path).strip(), outcome, repair)
