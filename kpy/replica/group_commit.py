"""Records reach the disk before they are acknowledged: one round of fsyncs for all who wait (flush.messages).

Theory of operation. An append that leaves flush.messages records or more without an fsync, which with flush.messages=1
is every append, is not acknowledged and not readable before they are on disk. The partition asks for a flush here and
goes on; its producers wait, and so does the high watermark. Each log directory has at most one round at a time, in a
thread: it syncs every log that had asked when it began. Who asks meanwhile is in the next round, which begins when this
one ends. So a disk that takes a millisecond to sync acknowledges a thousand producers in two, and the thread that
serves clients never waits for it.

A round ends in one of two ways. Either everything is on disk, that is all a log needs to be read again: its records,
its new segments' names, its leader epochs, its topic id. Or a sync has failed: then nobody knows what the disk holds,
and to sync once more would find all well. The whole directory goes offline, and who waits is told so.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from kpy.storage.flush import FlushJob
from kpy.storage.log import Log

RunInThread = Callable[[Callable[[], None], Callable[[OSError | None], None]], None]
"""Called with a job and with what is to be told, in the caller's thread, how it ended."""


class Flushable(Protocol):
    """What asks for a flush: a partition."""

    @property
    def log(self) -> Log: ...
    def flushed(self) -> None:
        """A round that began after the last request has ended, well or badly."""
        ...


class GroupCommit:
    """Rounds of flushes, one at a time for each log directory."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._asking: dict[str, dict[Flushable, None]] = {}
        self._busy: set[str] = set()

    def flush(self, partition: Flushable) -> None:
        """Make durable what is in the partition's log by now, and tell it."""
        directory = partition.log.data_dir
        self._asking.setdefault(directory, {})[partition] = None
        if directory not in self._busy:
            self._begin_round(directory)

    def _begin_round(self, directory: str) -> None:
        self._busy.add(directory)
        asked = [(partition, partition.log) for partition in self._asking.pop(directory)]
        jobs = [(log, job) for _, log in asked if not log.is_offline and (job := log.flush_job(include_active=True))]
        self._run_in_thread(partial(_run, [job for _, job in jobs]), partial(self._end_round, directory, asked, jobs))

    def _end_round(
        self,
        directory: str,
        asked: list[tuple[Flushable, Log]],
        jobs: list[tuple[Log, FlushJob]],
        error: OSError | None,
    ) -> None:
        self._busy.discard(directory)
        for log, job in jobs:
            if error is None:
                log.flushed(job)
            else:
                log.disk.on_error(error)
        if directory in self._asking:
            # Before anybody is answered, so that the disk has work while the answers are written.
            self._begin_round(directory)
        for partition, log in asked:
            partition.flushed()
            if partition.log is not log:
                # Its log lies in another directory by now.
                self.flush(partition)


def _run(jobs: list[FlushJob]) -> None:
    for job in jobs:
        job.run()
