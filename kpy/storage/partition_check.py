"""What is wrong in a partition's directory: its files by name, its batches, and whether the rest agrees with them."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from kpy import ids
from kpy.errors import StorageError
from kpy.storage.checkpoints import LEADER_EPOCHS, PARTITION_METADATA, read_topic_id
from kpy.storage.findings import Finding, Severity
from kpy.storage.fs import Fs
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.segment_check import SegmentWalk, WalkOptions
from kpy.storage.segment_files import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LOG_SUFFIX,
    SUFFIXES,
    SWAP_SUFFIX,
    parse_base_offset,
)
from kpy.storage.snapshots import SNAPSHOT_SUFFIX

_TEMPORARY_SUFFIX = ".tmp"

_LEFTOVERS = {
    DELETED_SUFFIX: ("is to be removed", "the next start removes it"),
    CLEANED_SUFFIX: ("was left by a compaction that did not finish", "the next start removes it"),
    SWAP_SUFFIX: ("was left by a compaction that was about to end", "the next start puts it in its place"),
    _TEMPORARY_SUFFIX: ("was left by a file that was being replaced", "nobody reads it"),
}


class PartitionFacts(NamedTuple):
    """What the rest of a data directory says of a partition, for the check to go by."""

    is_live: bool = False
    is_clean: bool = False
    recovery_point: int | None = None
    """None if it is unknown: then the next start reads everything."""
    log_start_offset: int = 0
    may_have_gaps: bool = False
    """Whether the log is known to be compacted."""
    on_progress: Callable[[int], None] = lambda size_bytes: None


class PartitionSummary(NamedTuple):
    """What a check has read."""

    segments: int = 0
    batches: int = 0
    records: int = 0
    size_bytes: int = 0
    start_offset: int = 0
    end_offset: int = 0
    topic_id: bytes = ids.ZERO_ID


class PartitionCheck:
    """Checks one partition's directory. `summary` is complete when `findings` has ended."""

    def __init__(self, fs: Fs, directory: str, facts: PartitionFacts) -> None:
        self._fs = fs
        self._directory = directory
        self._facts = facts
        self._id = ids.ZERO_ID
        self.summary = PartitionSummary()

    def findings(self) -> Iterator[Finding]:
        """Everything that is worth saying, file by file. Raises OSError."""
        names = sorted(self._fs.list(self._directory))
        bases = [base for name in names if name.endswith(LOG_SUFFIX) and (base := parse_base_offset(name)) is not None]
        yield from self._names(names, set(bases))
        yield from self._topic_id()
        if not bases:
            yield Finding(Severity.WARNING, self._directory, None, "has no segment", "the log begins anew, empty")
            self.summary = PartitionSummary(topic_id=self._id)
            return
        walk = SegmentWalk(self._fs, self._directory, bases[0], self._options(bases), names)
        for base, limit in zip(bases, [*bases[1:], None], strict=True):
            yield from walk.walk(base, limit)
        start_offset = max(bases[0], self._facts.log_start_offset)
        yield from walk.epochs.finish(start_offset, walk.next_offset, walk.is_damaged)
        yield from walk.producers.finish(walk.next_offset, walk.is_damaged)
        yield from self._gaps(walk)
        self.summary = PartitionSummary(
            len(bases), walk.batches, walk.records, walk.size_bytes, start_offset, walk.next_offset, self._id
        )

    def _options(self, bases: list[int]) -> WalkOptions:
        facts = self._facts
        recovered_from = max((base for base in bases if base <= (facts.recovery_point or 0)), default=bases[0])
        return WalkOptions(
            is_live=facts.is_live,
            is_clean=facts.is_clean,
            recovered_from=LONG_MAX if facts.is_clean else recovered_from,
            index_interval_bytes=LogConfig().index_interval_bytes,
            on_progress=facts.on_progress,
        )

    def _names(self, names: list[str], bases: set[int]) -> Iterator[Finding]:
        """What is wrong with the names of files, and the files themselves where nothing of them is read."""
        for name in names:
            path = f"{self._directory}/{name}"
            suffix = next((each for each in _LEFTOVERS if name.endswith(each)), None)
            base = parse_base_offset(name)
            if suffix is not None and (base is not None or suffix == _TEMPORARY_SUFFIX):
                yield Finding(Severity.NOTE, path, None, *_LEFTOVERS[suffix])
            elif base is not None and name == f"{base:020d}{os.path.splitext(name)[1]}" and name.endswith(SUFFIXES):
                if base not in bases:
                    yield Finding(
                        Severity.WARNING,
                        path,
                        None,
                        "belongs to no segment",
                        "the next start removes it",
                        partial(self._remove, path),
                    )
                elif not os.access(path, os.R_OK | os.W_OK):
                    yield Finding(
                        Severity.ERROR, path, None, "is not readable and writable", "the broker does not start"
                    )
            elif name not in (LEADER_EPOCHS, PARTITION_METADATA) and not (
                base is not None and name.endswith(SNAPSHOT_SUFFIX)
            ):
                yield Finding(Severity.NOTE, path, None, "is not of a log", "it is left alone")

    def _remove(self, path: str) -> str:
        self._fs.remove(path)
        return "removed"

    def _topic_id(self) -> Iterator[Finding]:
        path = f"{self._directory}/{PARTITION_METADATA}"
        try:
            self._id = read_topic_id(self._fs, path)
        except StorageError as error:
            what = str(error).removeprefix(path).strip()
            yield Finding(Severity.WARNING, path, None, what, "the topic id is taken from the cluster's metadata")
            return
        if self._id == ids.ZERO_ID:
            yield Finding(Severity.NOTE, path, None, "is missing", "the topic id is taken from the cluster's metadata")

    def _gaps(self, walk: SegmentWalk) -> Iterator[Finding]:
        """Offsets without records that compaction cannot have left."""
        gap = walk.first_gap
        if gap is not None and not self._facts.may_have_gaps:
            what = f"no batch has the offsets {gap.first_offset} to {gap.end_offset - 1} in front of this one"
            if walk.gaps > 1:
                what += f", and {walk.gaps - 1} more gaps follow"
            outcome = "as compaction leaves it; if the topic never was compacted, records are missing"
            yield Finding(Severity.WARNING, gap.path, gap.position, what, outcome)
