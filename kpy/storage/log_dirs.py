"""All data directories of a broker, and the logs in them (Kafka class LogManager).

`.kafka_cleanshutdown` is written last by a clean shutdown and removed first by the next start, so that its presence
means: every file here is complete. A directory whose disk fails, at the start or later, goes offline with all its logs,
and the others go on serving; without any, a broker does not start. What one directory holds: log_directory.py. How a
log moves into another: moves.py.

Work that can take long (syncing, compacting, copying) comes as a `DiskJob`: `run` may run in a worker thread, `done`
must then be called in the thread that owns the logs. `carry_out` does both at once.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from kpy import ids
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    PARTITION_METADATA,
    RECOVERY_POINTS,
    TopicPartition,
    write_topic_id,
)
from kpy.storage.cleaner_manager import CleanerManager
from kpy.storage.disk_job import DiskJob, nothing
from kpy.storage.fs import Fs, OsFs, remove_if_exists, remove_tree
from kpy.storage.log import Log
from kpy.storage.log_config import DAY_MS, LogConfig
from kpy.storage.log_directory import (
    DELETE_SUFFIX,
    LOCK,
    STRAY_SUFFIX,
    LogDirectory,
    Meta,
    aside_name,
    partition_name,
)
from kpy.storage.mover import Mover
from kpy.storage.recovery import LoadRequest, load_log
from kpy.storage.retention import is_kept_by_future_timestamp

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class LogDirs:
    """The broker's logs by (topic, partition), wherever they lie."""

    def __init__(self, fs: Fs, rng: random.Random, producer_expiration_ms: int, syncing_threads: int) -> None:
        self.fs = fs
        self._syncing_threads = syncing_threads
        self._rng = rng
        self._producer_expiration_ms = producer_expiration_ms
        self.directories: list[LogDirectory] = []
        self.cluster_id = ""
        self.was_clean = True
        """Whether the logs that were found are complete; if not, they were recovered and may have lost their tails."""
        self.logs: dict[TopicPartition, Log] = {}
        self.on_offline: Callable[[str, list[TopicPartition]], None] | None = None
        self._remarked: dict[TopicPartition, int] = {}
        """The base offset of the segment that has been remarked upon."""
        self.cleaner = CleanerManager(fs, self.fail)
        self.mover = Mover(self)

    @classmethod
    def open(
        cls,
        paths: Sequence[str | Path],
        *,
        broker_id: int,
        cluster_id: str | None,
        now_ms: int,
        config_for: Callable[[str], LogConfig],
        rng: random.Random,
        fs: Fs | None = None,
        producer_expiration_ms: int = DAY_MS,
        syncing_threads: int = 1,
    ) -> "LogDirs":
        """Lock the directories, check that they belong to this broker, and load every log, recovering where needed.

        Without `cluster_id` the one in meta.properties counts, or a new one is made. `syncing_threads` sync many logs
        or directories at once. Raises StorageError.
        """
        dirs = cls(fs or OsFs(), rng, producer_expiration_ms, syncing_threads)
        try:
            dirs._open_directories([os.path.abspath(path) for path in paths])
            dirs._check_owner(broker_id, cluster_id)
            for directory in dirs.online():
                dirs._try(directory, partial(dirs._load, directory, config_for, now_ms))
            for directory in dirs.online():
                dirs._try(directory, partial(dirs.mover.resume, directory, config_for, now_ms))
            if not dirs.online():
                raise StorageError(f"Cannot use the data directories: {dirs.directories[0].error}")
        except StorageError:
            dirs._unlock()
            raise
        return dirs

    # Opening.

    def _try(self, directory: LogDirectory, step: Callable[[], None]) -> None:
        """A disk that fails at the start is one that has failed."""
        try:
            step()
        except OSError as error:
            self.fail(directory.path, error)

    def _open_directories(self, paths: list[str]) -> None:
        real_paths: dict[str, str] = {}
        for path in paths:
            directory = LogDirectory(self.fs, path, on_disk_error=partial(self.fail, path))
            self.directories.append(directory)
            self._try(directory, partial(self._lock, directory, real_paths))

    def _lock(self, directory: LogDirectory, real_paths: dict[str, str]) -> None:
        path = directory.path
        self.fs.makedirs(path)
        real_path = self.fs.real_path(path)
        if real_path in real_paths:
            raise StorageError(f"{real_paths[real_path]} and {path} are the same data directory")
        real_paths[real_path] = path
        lock_fd = self.fs.lock(f"{path}/{LOCK}")
        if lock_fd is None:
            raise StorageError(f"The data directory {path} is in use by another process")
        directory.lock_fd = lock_fd

    def _check_owner(self, broker_id: int, cluster_id: str | None) -> None:
        new: list[LogDirectory] = []

        def read(directory: LogDirectory) -> None:
            nonlocal cluster_id
            meta = directory.read_meta()
            if meta is None:
                new.append(directory)
                return
            if meta.broker_id != broker_id:
                raise StorageError(f"{directory.path} belongs to broker {meta.broker_id}, this is broker {broker_id}")
            if cluster_id is None:
                cluster_id = meta.cluster_id
            elif meta.cluster_id != cluster_id:
                raise StorageError(
                    f"{directory.path} belongs to cluster {meta.cluster_id}, this broker to {cluster_id}"
                )

        for directory in self.online():
            self._try(directory, partial(read, directory))
        self.cluster_id = cluster_id or ids.to_text(ids.new_id(self._rng))
        if 0 < len(new) < len(self.online()):
            for directory in new:
                _log.warning("the data directory %s is new; is a disk to be mounted there?", directory.path)
        for directory in new:
            self._try(directory, partial(directory.write_meta, Meta(broker_id, self.cluster_id)))

    def _load(self, directory: LogDirectory, config_for: Callable[[str], LogConfig], now_ms: int) -> None:
        found = directory.find()
        directory.read_state(found.current)
        directory.doomed = [(now_ms, f"{directory.path}/{name}") for name in found.doomed]
        directory.found_futures = found.future
        if not directory.was_clean:
            names = (*found.current.values(), *(name for _, name in found.future))
            self._in_threads(self.fs.sync_dir, [f"{directory.path}/{name}" for name in names])
        for key in found.current:
            self.was_clean = self.was_clean and directory.was_clean
            log = self.load(directory, key, f"{directory.path}/{partition_name(key)}", config_for(key[0]), now_ms)
            if key in self.logs:
                log = self._settle(self.logs[key], log)
            self.logs[key] = log
            self.directory_of(log).logs[key] = log
        trusted = directory.found[RECOVERY_POINTS] or {}
        if any(log.recovery_point < trusted.get(key, 0) for key, log in directory.logs.items()):
            # A log has lost what was trusted. What is written in its place must not be, if the next crash comes soon.
            directory.write_checkpoints()

    def load(
        self,
        directory: LogDirectory,
        key: TopicPartition,
        path: str,
        config: LogConfig,
        now_ms: int,
        is_new: bool = False,
    ) -> Log:
        """The log in a partition's directory, with what the checkpoints say of it. Raises OSError and StorageError."""
        recovery_points = {} if is_new else directory.found[RECOVERY_POINTS]
        request = LoadRequest(
            fs=self.fs,
            directory=path,
            config=config,
            is_clean=is_new or directory.was_clean,
            recovery_point=None if recovery_points is None else recovery_points.get(key, 0),
            log_start_offset=0 if is_new else directory.found_offset(LOG_START_OFFSETS, key),
            producer_expiration_ms=self._producer_expiration_ms,
            now_ms=now_ms,
        )
        topic_id = directory.topic_id_in(f"{os.path.basename(path)}/{PARTITION_METADATA}")
        loaded = load_log(request)
        log = Log(path, key, topic_id, config, loaded, fs=self.fs, rng=self._rng, on_disk_error=directory.on_disk_error)
        if not is_new:
            if log.must_flush and (job := log.flush_job(include_active=True)):
                # What a crash of the process left in the page cache is going to be read.
                job.run()
                log.flushed(job)
            log.high_watermark = directory.found_offset(HIGH_WATERMARKS, key)
        return log

    def _settle(self, one: Log, other: Log) -> Log:
        """Of two logs of one partition, which a crash at the end of a move leaves, the one that has more is kept.

        The other one is set aside, with all it has.
        """
        if ids.ZERO_ID not in (one.topic_id, other.topic_id) and one.topic_id != other.topic_id:
            raise StorageError(
                f"{one.topic}-{one.partition} is in two data directories, for two topics of that name: {one.dir} and"
                f" {other.dir}; move the one away that belongs to the deleted topic"
            )
        kept, rest = (one, other) if _extent(one) >= _extent(other) else (other, one)
        directory = self.directory_of(rest)
        directory.logs.pop((rest.topic, rest.partition), None)
        self.set_aside(rest, f"{kept.dir}, which has at least as much, is the same partition")
        return kept

    # Logs come and go.

    def online(self) -> list[LogDirectory]:
        return [directory for directory in self.directories if directory.error is None]

    def directory_of(self, log: Log) -> LogDirectory:
        return next(each for each in self.directories if each.path == log.data_dir)

    def directory_at(self, path: str) -> LogDirectory:
        """Raises ApiError LOG_DIR_NOT_FOUND for a path that is none of log.dirs, and KAFKA_STORAGE_ERROR."""
        directory = next((each for each in self.directories if each.path == path), None)
        if directory is None:
            raise ApiError(ErrorCode.LOG_DIR_NOT_FOUND, f"{path} is not a data directory of this broker")
        if directory.error is not None:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, f"The data directory {path} is offline")
        return directory

    def create_log(self, topic: str, partition: int, topic_id: bytes, config: LogConfig, is_new: bool = True) -> Log:
        """A new empty log, in the online directory that has the fewest, or in the one chosen for it.

        A partition that is not new may have its log in a directory that is offline: ApiError KAFKA_STORAGE_ERROR.
        """
        online = self.online()
        if not online:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, "Every data directory is offline")
        if not is_new and len(online) < len(self.directories):
            raise ApiError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"Its log may be in {', '.join(self.offline_paths())}, which is offline"
            )
        key = topic, partition
        directory = self.mover.preferred(key) or min(online, key=lambda each: len(each.logs) + len(each.futures))
        log = self.create_in(directory, partition_name(key), key, topic_id, config)
        self.logs[key] = directory.logs[key] = log
        return log

    def create_in(
        self, directory: LogDirectory, name: str, key: TopicPartition, topic_id: bytes, config: LogConfig
    ) -> Log:
        """An empty log under a name. Raises ApiError KAFKA_STORAGE_ERROR."""
        path = f"{directory.path}/{name}"
        try:
            self.fs.mkdir(path)
            write_topic_id(self.fs, f"{path}/{PARTITION_METADATA}", topic_id)
            return self.load(directory, key, path, config, now_ms=0, is_new=True)
        except FileExistsError as error:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, f"{path} is in the way: move it elsewhere") from error
        except OSError as error:
            self.fail(directory.path, error)
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot create {path}") from error

    def delete_log(self, topic: str, partition: int, now_ms: int) -> None:
        """Take the log out of service and rename its directory; the files go file.delete.delay.ms later."""
        key = topic, partition
        self.mover.cancel(key, now_ms)
        self.doom(self._take_out(key), now_ms)

    def set_aside_log(self, topic: str, partition: int, reason: str) -> None:
        """Take a log out of service that nobody knows; its files stay, under a name that ends in -stray."""
        self.set_aside(self._take_out((topic, partition)), reason)

    def _take_out(self, key: TopicPartition) -> Log:
        log = self.logs.pop(key)
        directory = self.directory_of(log)
        del directory.logs[key]
        directory.cleaner_offsets.pop(key, None)
        self._remarked.pop(key, None)
        self.cleaner.forget(key)
        return log

    def doom(self, log: Log, now_ms: int) -> None:
        """Rename the directory of a log that has been taken out; it goes file.delete.delay.ms later."""
        directory = self.directory_of(log)
        if self._rename_away(log, DELETE_SUFFIX, sync=False):
            directory.doomed.append((now_ms + log.config.file_delete_delay_ms, str(log.dir)))

    def set_aside(self, log: Log, reason: str) -> None:
        """Rename the directory of a log that has been taken out; it stays."""
        before = log.dir
        if self._rename_away(log, STRAY_SUFFIX, sync=True):
            _log.warning("%s is set aside as %s, and never removed: %s", before, log.dir.name, reason)

    def _rename_away(self, log: Log, suffix: str, sync: bool) -> bool:
        key = log.topic, log.partition
        log.is_offline = True
        return self.rename(log, aside_name(key, self.new_unique(), suffix), sync)

    def new_unique(self) -> bytes:
        return self._rng.randbytes(16)

    def rename(self, log: Log, name: str, sync: bool = True) -> bool:
        """Give a log's directory another name. False if the disk fails, which then is offline.

        A topic's deletion does not sync: it renames many, and a power cut only sets some of them aside.
        """
        directory = self.directory_of(log)
        target = f"{directory.path}/{name}"
        try:
            self.fs.rename(str(log.dir), target)
            log.moved_to(target)
            if sync:
                self.fs.sync_dir(directory.path)
        except OSError as error:
            self.fail(directory.path, error)
            return False
        return True

    # Upkeep.

    def retention(self, now_ms: int) -> None:
        """Drop what is due: old segments, which are only renamed, silent producers, idle descriptors."""
        for directory in self.online():
            try:
                for key, log in list(directory.logs.items()):
                    if key not in self.cleaner.being_compacted and directory.error is None:
                        self._apply_retention(log, now_ms)
                    log.producer_state.expire(now_ms)
                    log.drop_idle_files()
            except OSError as error:
                self.fail(directory.path, error)

    def _apply_retention(self, log: Log, now_ms: int) -> None:
        try:
            log.delete_old_segments(now_ms)
            oldest = log.segments()[0]
            is_new = self._remarked.get((log.topic, log.partition)) != oldest.base_offset
            if is_new and is_kept_by_future_timestamp(oldest, log.config, now_ms):
                self._remarked[log.topic, log.partition] = oldest.base_offset
                _log.warning(
                    "%s has records of the future, up to %d ms: retention.ms keeps it, and all that follows, till then",
                    oldest.path(),
                    oldest.max_timestamp,
                )
        except ApiError as error:
            _log.warning("no segments of %s-%d were deleted: %s", log.topic, log.partition, error)

    def removal_jobs(self, now_ms: int) -> Iterator[DiskJob]:
        """Remove the files and partition directories that were deleted file.delete.delay.ms ago."""
        for directory in self.online():
            files = [path for log in directory.logs.values() for path in log.take_due_files(now_ms)]
            trees = [path for due_ms, path in directory.doomed if due_ms <= now_ms]
            directory.doomed = [each for each in directory.doomed if each[0] > now_ms]
            if files or trees:
                yield DiskJob(directory.path, partial(self._remove, files, trees), nothing)

    def _remove(self, files: list[str], trees: list[str]) -> None:
        for path in files:
            remove_if_exists(self.fs, path)
        for path in trees:
            remove_tree(self.fs, path)

    def remove_deleted(self, now_ms: int) -> None:
        """Carry out the removal jobs in this thread."""
        for job in self.removal_jobs(now_ms):
            self.carry_out(job)

    def checkpoint_jobs(self, *names: str) -> Iterator[DiskJob]:
        """Write the checkpoints that have changed, all or those named."""
        for directory in self.online():
            job = directory.checkpoint_job(*names)
            if job is not None:
                yield job

    def checkpoint(self, now_ms: int) -> None:
        """Carry out the checkpoint jobs in this thread."""
        for job in self.checkpoint_jobs():
            self.carry_out(job)

    def flush_jobs(self, now_ms: int = 0) -> Iterator[DiskJob]:
        """Make durable what has been rolled, so that a crash need not recover it; and every flush.ms all there is."""
        for directory in self.online():
            for log in list(directory.logs.values()):
                # A clock that jumps back must not put it off.
                is_due = not 0 <= now_ms - log.flushed_ms < log.config.flush_ms
                if is_due:
                    log.flushed_ms = now_ms
                job = log.flush_job(include_active=is_due)
                if job is not None:
                    yield DiskJob(directory.path, job.run, partial(log.flushed, job))

    def clean_job(self, now_ms: int) -> DiskJob | None:
        """A round of compaction for the dirtiest log that is due, if any; never two rounds for one log at a time."""
        return self.cleaner.job(self.online(), self.mover.moves, now_ms)

    def clean_jobs(self, now_ms: Callable[[], int]) -> Iterator[DiskJob]:
        """Rounds of compaction as long as a log is due, each followed by the checkpoint of how far it has come."""
        while (job := self.clean_job(now_ms())) is not None:
            yield job
            yield from self.checkpoint_jobs(CLEANER_OFFSETS)

    def clean(self, now_ms: int) -> None:
        """Compact what is due, in this thread."""
        for job in self.clean_jobs(lambda: now_ms):
            self.carry_out(job)

    def carry_out(self, job: DiskJob) -> None:
        """Run a job and finish it, all in this thread; a failing disk takes the directory offline."""
        try:
            job.run()
        except OSError as error:
            self.fail(job.path, error)
        else:
            job.done()

    # Failure and the end.

    def offline_paths(self) -> list[str]:
        return [directory.path for directory in self.directories if directory.error is not None]

    def fail(self, path: str, error: OSError) -> None:
        """The disk under `path` has failed: its logs refuse everything from now on."""
        directory = next(each for each in self.directories if each.path == path)
        if directory.error is not None:
            return
        directory.error = error
        _log.error("the data directory %s is offline: %s", path, error)
        for log in directory.logs.values():
            log.is_offline = True
        self.mover.directory_failed(directory)
        if self.on_offline is not None:
            self.on_offline(path, list(directory.logs))

    def close(self, clean: bool = True) -> None:
        """Close every log. A clean close makes everything durable and says so; otherwise the next start recovers.

        A second close does nothing.
        """
        for directory in self.online() if clean else []:
            try:
                self._in_threads(Log.close, [*directory.logs.values(), *directory.futures.values()])
                directory.write_checkpoints()
                directory.write_clean_marker()
            except OSError as error:
                self.fail(directory.path, error)
            except ApiError:
                _log.warning("%s was not closed cleanly", directory.path)
        self.logs.clear()
        self._unlock()
        self.directories.clear()

    def _in_threads(self, sync: Callable[[_T], None], items: Sequence[_T]) -> None:
        """Syncs all of them in several threads: a journal commits the syncs of many files as fast as that of one."""
        if self._syncing_threads == 1 or len(items) <= 1:
            for item in items:
                sync(item)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(self._syncing_threads) as threads:
            for _ in threads.map(sync, items):
                pass  # Each result is asked for, so that the first failure is raised.

    def _unlock(self) -> None:
        for directory in self.directories:
            directory.logs.clear()
            directory.futures.clear()
            if directory.lock_fd >= 0:
                self.fs.close(directory.lock_fd)
                directory.lock_fd = -1


def _extent(log: Log) -> tuple[int, int]:
    """Orders copies of one partition: what a later leader wrote counts more than a longer tail."""
    return log.leader_epochs.latest_epoch, log.log_end_offset
