"""The moves of logs between data directories: which are under way, and which directory a log is wanted in.

Kafka classes ReplicaAlterLogDirsManager and, for what becomes of copies at a start, LogManager. One slice of one log is
copied at a time, in turn. How a single log is copied and swapped: moves.py.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.replication_quota import ReplicationQuota
from kpy.storage.checkpoints import LOG_START_OFFSETS, RECOVERY_POINTS, TopicPartition
from kpy.storage.disk_job import DiskJob
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_directory import MAX_NAME_LENGTH, LogDirectory, future_name, partition_name
from kpy.storage.moves import Move

if TYPE_CHECKING:
    from kpy.storage.log_dirs import LogDirs

SLICE_BYTES = 1 << 20
"""What is copied at a time, or one batch if that is larger."""
MAX_PREFERRED = 10_000
"""Partitions to come whose directory is remembered; the oldest wish is forgotten first."""

_log = logging.getLogger(__name__)


class Mover:
    """`moves` are those under way. `on_moved` is told of each log that has changed its directory. `quota` bounds what
    all moves together copy.
    """

    def __init__(self, dirs: "LogDirs", clock: Callable[[], float] = time.monotonic) -> None:
        self._dirs = dirs
        self._clock = clock
        self.quota = ReplicationQuota()
        self._preferred: dict[TopicPartition, str] = {}
        self.moves: dict[TopicPartition, Move] = {}
        self.on_moved: Callable[[TopicPartition, Log], None] | None = None

    # What is wanted.

    def check(self, key: TopicPartition, path: str) -> LogDirectory:
        """The directory, if a log may be moved there.

        Raises ApiError INVALID_TOPIC_EXCEPTION for a name that leaves no room, LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR.
        """
        if len(future_name(key, bytes(16))) > MAX_NAME_LENGTH:
            raise ApiError(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic name is too long.")
        return self._dirs.directory_at(path)

    def prefer(self, key: TopicPartition, directory: LogDirectory) -> None:
        """Where the log is to be created, once there is one."""
        self._preferred.pop(key, None)
        self._preferred[key] = directory.path
        if len(self._preferred) > MAX_PREFERRED:
            del self._preferred[next(iter(self._preferred))]

    def preferred(self, key: TopicPartition) -> LogDirectory | None:
        """The directory that was chosen for a log to be created, if it is online; it is forgotten then."""
        path = self._preferred.pop(key, None)
        return next((each for each in self._dirs.online() if each.path == path), None)

    def begin(self, key: TopicPartition, target: LogDirectory, now_ms: int) -> None:
        """Move the log to `target`; a move to another directory ends. Raises ApiError KAFKA_STORAGE_ERROR."""
        move = self.moves.get(key)
        if move is not None and move.target is not target:
            self.cancel(key, now_ms)
            move = None
        log = self._dirs.logs[key]
        if move is not None or self._dirs.directory_of(log) is target:
            return
        if self._dirs.offline_paths():
            # A copy may lie in a directory that is offline, and there must not be two.
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, "A data directory is offline, so no log is moved")
        name = future_name(key, self._dirs.new_unique())
        copy = self._dirs.create_in(target, name, key, log.topic_id, log.config)
        self._start(log, copy, target)

    def _start(self, log: Log, copy: Log, target: LogDirectory) -> None:
        copy.disk.on_error = _raise
        key = log.topic, log.partition
        target.futures[key] = copy
        self.moves[key] = Move(
            self._dirs.fs, log, copy, target, swap=self._swap, fail=self._dirs.fail, count=self._count
        )
        _log.info("moving %s-%d from %s to %s", *key, log.dir.parent, target.path)

    def cancel(self, key: TopicPartition, now_ms: int) -> None:
        """End a move, if there is one; the copy goes."""
        move = self.moves.pop(key, None)
        if move is None:
            return
        move.is_over = True
        del move.target.futures[key]
        remove = partial(self._dirs.doom, move.copy, now_ms)
        if move.is_busy:
            move.on_idle = remove
        else:
            remove()

    # Copying.

    def job(self, now_ms: int) -> DiskJob | None:
        """The next slice of the move whose turn it is; None when there is nothing to copy, or was too much already."""
        if self.quota.exceeded_for_ms(self._clock_ms()):
            return None
        for key, move in list(self.moves.items()):
            is_held_up = move.is_busy or key in self._dirs.cleaner.being_compacted
            if is_held_up or self.moves.get(key) is not move:
                continue
            del self.moves[key]
            self.moves[key] = move
            job = None if move.is_over else move.job(now_ms, self._slice_bytes())
            if move.is_over and self.moves.get(key) is move:
                self.cancel(key, now_ms)
            if job is not None:
                return job
        return None

    def _slice_bytes(self) -> int:
        """No more than a second's worth, so that a change of the limit is felt."""
        return max(1, min(SLICE_BYTES, self.quota.bytes_per_second))

    def _count(self, size_bytes: int) -> None:
        """Called where a job runs, and there is one at a time."""
        self.quota.record(size_bytes, self._clock_ms())

    def _clock_ms(self) -> int:
        return int(self._clock() * 1000)

    def move_all(self, now_ms: int) -> None:
        """Carry out the jobs in this thread until there is none."""
        while (job := self.job(now_ms)) is not None:
            self._dirs.carry_out(job)

    def _swap(self, move: Move) -> None:
        """The copy takes the log's place. It bears the log's name before the log loses it."""
        dirs, key, old, new = self._dirs, move.key, move.log, move.copy
        source = dirs.directory_of(old)
        # A crash must find where the log starts in the new directory, or deleted records come back; and how far it is
        # durable, or gaps of an earlier compaction are taken for damage.
        checkpoint = move.target.checkpoint_job(LOG_START_OFFSETS, RECOVERY_POINTS)
        if checkpoint is not None:
            dirs.carry_out(checkpoint)
        if not dirs.rename(new, partition_name(key)):
            return
        new.config = old.config
        new.disk.on_error = move.target.on_disk_error
        del self.moves[key], move.target.futures[key], source.logs[key]
        dirs.logs[key] = move.target.logs[key] = new
        cleaned_up_to = source.cleaner_offsets.pop(key, None)
        if cleaned_up_to is not None:
            move.target.cleaner_offsets[key] = cleaned_up_to
        if self.on_moved is not None:
            self.on_moved(key, new)
        dirs.doom(old, move.now_ms)
        _log.info("%s-%d has moved to %s: %d bytes", *key, move.target.path, new.size_bytes)

    # Starts and failures.

    def resume(self, directory: LogDirectory, config_for: Callable[[str], LogConfig], now_ms: int) -> None:
        """Go on with the copies that the last run left. Raises OSError."""
        for key, name in directory.found_futures:
            log = self._dirs.logs.get(key)
            if log is None and self._dirs.offline_paths():
                _log.warning("%s/%s stays: its log may be in a directory that is offline", directory.path, name)
                continue
            copy = self._dirs.load(directory, key, f"{directory.path}/{name}", config_for(key[0]), now_ms)
            if log is None:
                self._dirs.set_aside(copy, "it is a copy of a log that is gone")
            elif copy.topic_id not in (ZERO_ID, log.topic_id):
                self._dirs.set_aside(copy, f"it is a copy for another topic of that name than {log.dir}")
            elif key in self.moves or self._dirs.directory_of(log) is directory:
                _log.warning("%s is removed: %s needs no such copy", copy.dir, log.dir)
                self._dirs.doom(copy, now_ms)
            else:
                self._start(log, copy, directory)

    def directory_failed(self, directory: LogDirectory) -> None:
        """Moves from and to it end; copies elsewhere stay for the next start, as the log may come back by then."""
        for key, move in list(self.moves.items()):
            if move.target is directory or move.log.is_offline:
                move.is_over = True
                del self.moves[key]
                move.target.futures.pop(key, None)
        directory.futures.clear()


def _raise(error: OSError) -> None:
    """A copy's disk error, which may be met in a worker thread, goes up to whoever carries out the job."""
    raise error
