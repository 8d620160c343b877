"""What it takes to make a log durable, as a job that can run outside the log's thread."""

import threading
from collections.abc import Callable
from typing import NamedTuple

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

    `files` and `directories` are those with changes that have never been synced.
    """

    gate: SyncGate
    fs: Fs
    segments: list[Segment]
    leader_epochs: LeaderEpochs
    end_offset: int
    files: dict[str, int]
    directories: dict[str, int]
    is_gone: Callable[[], bool]

    def run(self) -> None:
        """Sync everything. A log that is deleted meanwhile needs nothing; else failures are OSErrors, and final."""
        self.gate.run(self._sync)

    def _sync(self) -> None:
        try:
            for segment in self.segments:
                segment.flush()
            self.leader_epochs.sync()
            for path in self.files:
                File(self.fs, path).sync()
            for directory in self.directories:
                self.fs.sync_dir(directory)
        except FileNotFoundError:
            if not self.is_gone():
                raise


class Unsynced:
    """The files and directories of a log, besides its segments and leader epochs, whose changes may not be on disk.

    Each with the number of its last change: what has changed once more while a job ran is not done with.
    """

    __slots__ = ("_changes", "_directories", "_files", "_fs", "_gate")

    def __init__(self, fs: Fs, directories: list[str]) -> None:
        self._fs = fs
        self._gate = SyncGate()
        self._changes = 0
        self._directories = dict.fromkeys(directories, 0)
        self._files: dict[str, int] = {}

    def note_file(self, path: str) -> None:
        self._changes += 1
        self._files[path] = self._changes

    def note_names_in(self, directory: str) -> None:
        self._changes += 1
        self._directories[directory] = self._changes

    def job(
        self, segments: list[Segment], leader_epochs: LeaderEpochs, end_offset: int, is_gone: Callable[[], bool]
    ) -> FlushJob:
        """The job that syncs all this together with the segments and leader epochs of the log."""
        files, directories = dict(self._files), dict(self._directories)
        return FlushJob(self._gate, self._fs, segments, leader_epochs, end_offset, files, directories, is_gone)

    def synced(self, job: FlushJob) -> None:
        self._files = dict(self._files.items() - job.files.items())
        self._directories = dict(self._directories.items() - job.directories.items())
