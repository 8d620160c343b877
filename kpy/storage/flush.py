"""What it takes to make a log durable, as a job that can run outside the log's thread."""

from collections.abc import Callable
from typing import NamedTuple

from kpy.storage.fs import File, Fs
from kpy.storage.leader_epochs import LeaderEpochs
from kpy.storage.segment import Segment


class FlushJob(NamedTuple):
    """Makes a log durable below `end_offset`. `run` may run in a worker thread; then the log is told with `flushed`.

    `files` and `directories` are those with changes that have never been synced. With `includes_active`, the last
    segment was being appended to, and its indexes are left out.
    """

    fs: Fs
    segments: list[Segment]
    leader_epochs: LeaderEpochs
    files: list[str]
    directories: list[str]
    end_offset: int
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
