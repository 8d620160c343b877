"""Which log is compacted next, how fast and with how much memory (Kafka class LogCleanerManager).

One round at a time, of the dirtiest log that is due. A log whose compaction fails is set aside, with a line in the
broker's log, until the next start: the others go on, and what it holds stays as it is.
"""

import logging
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kpy.errors import ApiError
from kpy.storage.checkpoints import TopicPartition
from kpy.storage.disk_job import DiskJob, nothing
from kpy.storage.fs import Fs
from kpy.storage.log import Log
from kpy.storage.log_config import LONG_MAX
from kpy.storage.log_directory import LogDirectory
from kpy.storage.scan import CorruptBatchError
from kpy.storage.throttle import UNLIMITED_BYTES_PER_SECOND, Throttle

if TYPE_CHECKING:
    # Not at run time: it is imported when there is a log to compact.
    from kpy.storage.cleaner import CleanResult, CleanTask

PAUSE_S = 0.1
"""The longest that a round sleeps before it looks again whether the broker stops."""
YIELD_INTERVAL_S = 0.002
"""How long a round computes before it lets others run. On a busy machine it must then wait for its turn."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class CleanerConfig:
    """The broker's log.cleaner.* keys that bound a round: bytes of memory for the map, bytes of reads and writes a
    second, and how full the map may be.
    """

    dedupe_buffer_bytes: int = 1 << 27
    io_max_bytes_per_second: float = UNLIMITED_BYTES_PER_SECOND
    load_factor: float = 0.9


class CleanerManager:
    """`being_compacted` are the logs of rounds under way, `uncleanable` those that are set aside."""

    def __init__(
        self,
        fs: Fs,
        fail: Callable[[str, OSError], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._fs = fs
        self._fail = fail
        self._clock = clock
        self._sleep = sleep
        self._throttle = Throttle(UNLIMITED_BYTES_PER_SECOND, clock)
        self._config = CleanerConfig()
        self._next_yield_s = 0.0
        self.check_cancelled = nothing
        """Called in the worker thread; what it raises ends the round."""
        self.being_compacted: set[TopicPartition] = set()
        self.uncleanable: set[TopicPartition] = set()

    def configure(self, config: CleanerConfig) -> None:
        """Counts from the next round on, and the speed at once."""
        self._config = config
        self._throttle.bytes_per_second = config.io_max_bytes_per_second

    def job(
        self, directories: Iterable[LogDirectory], paused: Container[TopicPartition], now_ms: int
    ) -> DiskJob | None:
        """A round for the dirtiest log that is due, if any."""
        due: list[tuple[CleanTask, LogDirectory, Log]] = []
        for directory in directories:
            for key, log in directory.logs.items():
                is_held_up = key in self.being_compacted or key in self.uncleanable or key in paused
                if log.config.is_compacted and not is_held_up:
                    task = self._plan(directory, log, now_ms)
                    if task is not None and task.is_due:
                        due.append((task, directory, log))
        if not due:
            return None
        task, directory, log = max(due, key=lambda each: each[0].ratio)
        self.being_compacted.add((log.topic, log.partition))
        results: list[tuple[CleanResult, float]] = []
        run = partial(self._run, task, log, results)
        return DiskJob(directory.path, run, partial(self._finish, task, log, results, directory))

    def _plan(self, directory: LogDirectory, log: Log, now_ms: int) -> "CleanTask | None":
        from kpy.storage.cleaner import plan

        key = log.topic, log.partition
        checkpoint, config = directory.cleaned_up_to(key), self._config
        log.truncated_to = LONG_MAX
        try:
            return plan(log, self._fs, checkpoint, now_ms, self._pace, config.dedupe_buffer_bytes, config.load_factor)
        except (CorruptBatchError, ApiError) as error:
            self._set_aside(key, error)
        except OSError as error:
            self._fail(directory.path, error)
        return None

    def _pace(self, size_bytes: int, others_ran: bool = False) -> None:
        """In the worker thread: lets the others run, and pauses where the round is faster than it may be.

        What takes longer than PAUSE_S is paid for in parts, each at the speed that is allowed by then.
        """
        unpaid_bytes: float = size_bytes
        while True:
            part_bytes = min(unpaid_bytes, PAUSE_S * max(self._throttle.bytes_per_second, 1.0))
            delay_s = self._throttle.delay_s(part_bytes)
            unpaid_bytes -= part_bytes
            if delay_s > 0 or self._clock() >= self._next_yield_s:
                self._next_yield_s = self._clock() + delay_s + YIELD_INTERVAL_S
                self.check_cancelled()
                if delay_s > 0 or not others_ran:
                    self._sleep(min(delay_s, PAUSE_S))
            if unpaid_bytes <= 0:
                return

    def _set_aside(self, key: TopicPartition, error: Exception) -> None:
        self.uncleanable.add(key)
        _log.warning("%s-%d could not be compacted and is left as it is until the next start: %s", *key, error)

    def _run(self, task: "CleanTask", log: Log, results: "list[tuple[CleanResult, float]]") -> None:
        key = log.topic, log.partition
        started = self._clock()
        try:
            results.append((task.run(), self._clock() - started))
        except FileNotFoundError as error:
            if not log.is_offline:
                self._set_aside(key, error)
        except (CorruptBatchError, ApiError) as error:
            self._set_aside(key, error)
        except Exception:
            # Whatever it is, the next round must not meet it again, nor must it keep retention from the log.
            self.uncleanable.add(key)
            self.being_compacted.discard(key)
            raise

    def _finish(
        self, task: "CleanTask", log: Log, results: "list[tuple[CleanResult, float]]", directory: LogDirectory
    ) -> None:
        key = log.topic, log.partition
        self.being_compacted.discard(key)
        if directory.logs.get(key) is not log:
            self.uncleanable.discard(key)
            return
        if not results:
            return
        result, elapsed_s = results[0]
        try:
            from kpy.storage.cleaner import swap_in

            if swap_in(log, task, result):
                directory.cleaner_offsets[key] = result.end_offset
                _log.info("%s", _report(task, key, result, elapsed_s))
        except OSError as error:
            self._fail(directory.path, error)

    def forget(self, key: TopicPartition) -> None:
        """The log is deleted."""
        self.uncleanable.discard(key)


def _report(task: "CleanTask", key: TopicPartition, result: "CleanResult", elapsed_s: float) -> str:
    """What the round did, in one line."""
    stats = result.stats
    mb = 1 << 20
    rate = (stats.map_bytes + stats.read_bytes) / mb / max(elapsed_s, 1e-6)
    return (
        f"compacted {key[0]}-{key[1]} up to {result.end_offset}, dirty from {task.first_dirty_offset}:"
        f" {stats.read_bytes / mb:.1f} MB in {stats.read_records} records became {stats.written_bytes / mb:.1f} MB in"
        f" {stats.written_records}, in {elapsed_s:.1f} s ({rate:.1f} MB/s, map"
        f" {100 * stats.map_entries / stats.max_map_entries:.0f}% full)"
    )
