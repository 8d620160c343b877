"""What it takes to make a log durable, as a job that can run outside the log's thread."""

import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from kpy.storage.checkpoints import PARTITION_METADATA
from kpy.storage.fs import File, Fs
from kpy.storage.leader_epochs import LeaderEpochs
from kpy.storage.segment import Segment


class SyncGate:
    """Lets one job at a time sync a log, and none after one has failed.

    The kernel tells of a write that was lost once, to one fsync. Another one of the same file, at the same time or
    later, is told that all is well; so a failure is kept here and is the outcome of every job that follows.
    """

    __slots__ = ("_failure", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: OSError | None = None

    def run(self, sync: Callable[[], None]) -> None:
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                sync()
            except OSError as error:
                self._failure = error
                raise


class FlushJob(NamedTuple):
    """Makes a log durable below `end_offset`. `run` may run in a worker thread; then the log is told with `flushed`.

    `unsynced` are the changes of its directory that have never been synced. With `includes_active`, the last segment
    was being appended to, and its indexes are left out.
    """

    gate: SyncGate
    fs: Fs
    directory: str
    segments: list[Segment]
    leader_epochs: LeaderEpochs
    end_offset: int
    unsynced: "Changes"
    includes_active: bool
    is_gone: Callable[[], bool]

    def durable_end(self, active: Segment) -> int:
        """Below it nothing needs recovery, once the job has run and `active` is the log's active segment.

        A segment that was rolled meanwhile has left its indexes to the files, unsynced.
        """
        has_rolled = self.includes_active and self.segments and self.segments[-1] is not active
        return self.segments[-1].base_offset if has_rolled else self.end_offset

    def run(self) -> None:
        """Sync everything. A log that is deleted meanwhile needs nothing; else failures are OSErrors, and final."""
        self.gate.run(self._sync)

    def _sync(self) -> None:
        try:
            for segment in self.segments:
                segment.flush()
            self.leader_epochs.sync()
            if self.unsynced.metadata:
                File(self.fs, f"{self.directory}/{PARTITION_METADATA}").sync()
            if self.unsynced.names:
                self.fs.sync_dir(self.directory)
            if self.unsynced.own_name:
                self.fs.sync_dir(os.path.dirname(self.directory))
        except FileNotFoundError:
            if not self.is_gone():
                raise


class Changes(NamedTuple):
    """The numbers of the last changes to parts of a log's directory that may not be on disk, 0 for none."""

    metadata: int
    """To partition.metadata."""
    names: int
    """To the names of files."""
    own_name: int
    """To the name of the directory itself."""


class Unsynced:
    """What may not be on disk of a log besides its segments and leader epochs.

    Changes are numbered: what has changed once more while a job ran is not done with.
    """

    __slots__ = ("_changes_so_far", "_gate", "_metadata", "_names", "_own_name")

    def __init__(self) -> None:
        self._gate: SyncGate | None = None
        """There once there was a job: most logs of a broker that has many are only read."""
        self._changes_so_far = self._names = self._own_name = 1
        self._metadata = 0

    def note_metadata(self) -> None:
        self._metadata = self._next()

    def note_names(self) -> None:
        self._names = self._next()

    def moved(self) -> None:
        """The log's directory has another name, which is not on disk yet."""
        self._names = self._own_name = self._next()

    def _next(self) -> int:
        self._changes_so_far += 1
        return self._changes_so_far

    def job(
        self,
        fs: Fs,
        directory: str,
        segments: list[Segment],
        leader_epochs: LeaderEpochs,
        end_offset: int,
        includes_active: bool,
        is_gone: Callable[[], bool],
    ) -> FlushJob:
        """The job that syncs all this together with the segments and leader epochs of the log in `directory`."""
        if self._gate is None:
            self._gate = SyncGate()
        changes = Changes(self._metadata, self._names, self._own_name)
        return FlushJob(
            self._gate, fs, directory, segments, leader_epochs, end_offset, changes, includes_active, is_gone
        )

    def synced(self, job: FlushJob) -> None:
        done = job.unsynced
        self._metadata = 0 if self._metadata == done.metadata else self._metadata
        self._names = 0 if self._names == done.names else self._names
        self._own_name = 0 if self._own_name == done.own_name else self._own_name
