"""All data directories of a broker: locks, identity, checkpoints, and the logs in them (Kafka class LogManager).

A data directory holds one directory for each partition, `meta.properties` that says whose data it is, a lock, and
checkpoint files. `.kafka_cleanshutdown` is written last by a clean shutdown and removed first by the next start, so
that its presence means: every file here is complete. A directory whose disk fails goes offline with all its logs, the
others go on serving.

Work that can take long (syncing, compacting) comes as a `DiskJob`: `run` may run in a worker thread, `done` must then
be called in the thread that owns the logs. `carry_out` does both at once.
"""

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kpy import ids
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    PARTITION_METADATA,
    RECOVERY_POINTS,
    TopicPartition,
    read_offsets,
    read_topic_id,
    write_offsets,
    write_topic_id,
)
from kpy.storage.cleaner import CleanResult, CleanTask, plan, swap_in
from kpy.storage.fs import Fs, OsFs, read_file, remove_if_exists, remove_tree, replace_file
from kpy.storage.log import DELETE_DIR_SUFFIX, Log
from kpy.storage.log_config import DAY_MS, LONG_MAX, LogConfig
from kpy.storage.recovery import LoadRequest, load_log
from kpy.storage.scan import CorruptBatchError

LOCK = ".lock"
META_PROPERTIES = "meta.properties"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
CLEAN_SHUTDOWN_CONTENT = b'{"version":0,"brokerEpoch":-1}'

"""How long the files of a deleted log stay, as long as those of deleted segments by default."""

_PARTITION_DIR = re.compile(r"([a-zA-Z0-9._-]{1,249})-(\d{1,10})")

_log = logging.getLogger(__name__)


class DiskJob(NamedTuple):
    """Disk work to be done outside the logs' thread, and what to do in it afterwards."""

    path: str
    run: Callable[[], None]
    done: Callable[[], None]


class _Directory:
    """One data directory. `error` is set once its disk has failed."""

    def __init__(self, fs: Fs, path: str) -> None:
        self.fs = fs
        self.path = path
        self.lock_fd = -1
        self.error: OSError | None = None
        self.logs: dict[TopicPartition, Log] = {}
        self.doomed: list[tuple[int, str]] = []
        self.cleaner_offsets: dict[TopicPartition, int] = {}
        self.written: dict[str, dict[TopicPartition, int]] = {}

    def read_checkpoint(self, name: str) -> dict[TopicPartition, int] | None:
        """A checkpoint's offsets; None when it is missing or damaged: the logs are then read instead."""
        try:
            offsets = read_offsets(self.fs, f"{self.path}/{name}")
            self.written[name] = dict(offsets)
            return offsets
        except StorageError as error:
            _log.warning("ignoring a checkpoint: %s", error)
        except FileNotFoundError:
            pass
        return None

    def changed_checkpoints(self) -> dict[str, dict[TopicPartition, int]]:
        """The content of each checkpoint that is not on disk like that already."""
        logs = self.logs.items()
        wanted = {
            RECOVERY_POINTS: {key: log.recovery_point for key, log in logs},
            HIGH_WATERMARKS: {key: log.high_watermark for key, log in logs},
            LOG_START_OFFSETS: {
                key: log.log_start_offset for key, log in logs if log.log_start_offset > log.segment_base_offsets()[0]
            },
            CLEANER_OFFSETS: {key: self.cleaned_up_to(key) or 0 for key in self.cleaner_offsets if key in self.logs},
        }
        return {name: offsets for name, offsets in wanted.items() if offsets != self.written.get(name)}

    def cleaned_up_to(self, key: TopicPartition) -> int | None:
        """Where compaction goes on; what has been truncated and written anew since is dirty again."""
        if key in self.cleaner_offsets:
            self.cleaner_offsets[key] = min(self.cleaner_offsets[key], self.logs[key].truncated_to)
        return self.cleaner_offsets.get(key)

    def write_checkpoints(self, changed: dict[str, dict[TopicPartition, int]]) -> None:
        for name, offsets in changed.items():
            write_offsets(self.fs, f"{self.path}/{name}", offsets)


class LogDirs:
    """The broker's logs by (topic, partition), wherever they lie."""

    def __init__(self, fs: Fs, rng: random.Random, producer_expiration_ms: int, closing_threads: int) -> None:
        self._fs = fs
        self._closing_threads = closing_threads
        self._rng = rng
        self._producer_expiration_ms = producer_expiration_ms
        self._directories: list[_Directory] = []
        self._being_compacted: set[TopicPartition] = set()
        self._damaged: set[TopicPartition] = set()
        self.cluster_id = ""
        self.was_clean = True
        """Whether the logs that were found are complete; if not, they were recovered and may have lost their tails."""
        self.logs: dict[TopicPartition, Log] = {}
        self.on_offline: Callable[[str, list[TopicPartition]], None] | None = None

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
        closing_threads: int = 1,
    ) -> "LogDirs":
        """Lock the directories, check that they belong to this broker, and load every log, recovering where needed.

        Without `cluster_id` the one in meta.properties counts, or a new one is made. `closing_threads` close the logs
        in the end. Raises StorageError.
        """
        dirs = cls(fs or OsFs(), rng, producer_expiration_ms, closing_threads)
        try:
            dirs._open_directories([str(path) for path in paths], broker_id, cluster_id)
            for directory in dirs._directories:
                dirs._load(directory, config_for, now_ms)
        except OSError as error:
            dirs._unlock()
            raise StorageError(f"Cannot use the data directories: {error}") from error
        except StorageError:
            dirs._unlock()
            raise
        return dirs

    # Opening.

    def _open_directories(self, paths: list[str], broker_id: int, cluster_id: str | None) -> None:
        for path in paths:
            self._fs.makedirs(path)
            directory = _Directory(self._fs, path)
            lock_fd = self._fs.lock(f"{path}/{LOCK}")
            if lock_fd is None:
                raise StorageError(f"The data directory {path} is in use by another process")
            directory.lock_fd = lock_fd
            self._directories.append(directory)
        found = {path: _read_meta(self._fs, path) for path in paths}
        for path, meta in found.items():
            if meta is None:
                continue
            if meta.broker_id != broker_id:
                raise StorageError(f"{path} belongs to broker {meta.broker_id}, this is broker {broker_id}")
            if cluster_id is None:
                cluster_id = meta.cluster_id
            elif meta.cluster_id != cluster_id:
                raise StorageError(f"{path} belongs to cluster {meta.cluster_id}, this broker to {cluster_id}")
        self.cluster_id = cluster_id or ids.to_text(ids.new_id(self._rng))
        for path, meta in found.items():
            if meta is None:
                with suppress(PermissionError):  # Whoever may not open the parent has not just made its entry.
                    self._fs.sync_dir(os.path.dirname(path) or ".")
                write_offsets(self._fs, f"{path}/{RECOVERY_POINTS}", {})
                text = f"version=0\nbroker.id={broker_id}\ncluster.id={self.cluster_id}\n"
                replace_file(self._fs, f"{path}/{META_PROPERTIES}", text.encode())

    def _load(self, directory: _Directory, config_for: Callable[[str], LogConfig], now_ms: int) -> None:
        fs, path = self._fs, directory.path
        marker = f"{path}/{CLEAN_SHUTDOWN}"
        is_clean = fs.exists(marker)
        if is_clean:
            fs.remove(marker)
            fs.sync_dir(path)
        recovery_points = directory.read_checkpoint(RECOVERY_POINTS)
        log_start_offsets = directory.read_checkpoint(LOG_START_OFFSETS) or {}
        high_watermarks = directory.read_checkpoint(HIGH_WATERMARKS) or {}
        directory.cleaner_offsets = directory.read_checkpoint(CLEANER_OFFSETS) or {}
        for name in fs.list(path):
            if name.endswith(DELETE_DIR_SUFFIX):
                directory.doomed.append((now_ms, f"{path}/{name}"))
                continue
            match = _PARTITION_DIR.fullmatch(name)
            if match is None or not fs.is_dir(f"{path}/{name}"):
                continue
            key = match[1], int(match[2])
            self.was_clean = self.was_clean and is_clean
            if key in self.logs:
                raise StorageError(f"{name} is in two data directories: {self.logs[key].dir} and {path}/{name}")
            request = LoadRequest(
                fs=fs,
                directory=f"{path}/{name}",
                config=config_for(key[0]),
                is_clean=is_clean,
                recovery_point=None if recovery_points is None else recovery_points.get(key, 0),
                log_start_offset=log_start_offsets.get(key, 0),
                producer_expiration_ms=self._producer_expiration_ms,
                now_ms=now_ms,
            )
            log = self._add(directory, key, _topic_id_in(fs, request.directory), request)
            if log.must_flush and (job := log.flush_job(include_active=True)):
                # What a crash of the process left in the page cache is going to be read.
                job.run()
                log.flushed(job)
            log.high_watermark = high_watermarks.get(key, 0)

    def _add(self, directory: _Directory, key: TopicPartition, topic_id: bytes, request: LoadRequest) -> Log:
        log = Log(
            request.directory,
            key,
            topic_id,
            request.config,
            load_log(request),
            fs=self._fs,
            rng=self._rng,
            on_disk_error=partial(self.fail, directory.path),
        )
        self.logs[key] = directory.logs[key] = log
        return log

    # Logs come and go.

    def create_log(self, topic: str, partition: int, topic_id: bytes, config: LogConfig) -> Log:
        """A new empty log, in the online directory that has the fewest. Raises ApiError KAFKA_STORAGE_ERROR."""
        online = [directory for directory in self._directories if directory.error is None]
        if not online:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, "Every data directory is offline")
        directory = min(online, key=lambda each: len(each.logs))
        path = f"{directory.path}/{topic}-{partition}"
        request = LoadRequest(
            fs=self._fs,
            directory=path,
            config=config,
            is_clean=True,
            recovery_point=0,
            log_start_offset=0,
            producer_expiration_ms=self._producer_expiration_ms,
            now_ms=0,
        )
        try:
            self._fs.mkdir(path)
            write_topic_id(self._fs, f"{path}/{PARTITION_METADATA}", topic_id)
            return self._add(directory, (topic, partition), topic_id, request)
        except OSError as error:
            self.fail(directory.path, error)
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, f"Cannot create the log of {topic}-{partition}") from error

    def delete_log(self, topic: str, partition: int, now_ms: int) -> None:
        """Take the log out of service and rename its directory; the files go file.delete.delay.ms later."""
        key = topic, partition
        log = self.logs.pop(key)
        directory = next(each for each in self._directories if key in each.logs)
        del directory.logs[key]
        self._damaged.discard(key)
        directory.cleaner_offsets.pop(key, None)
        log.rename_for_delete()
        directory.doomed.append((now_ms + log.config.file_delete_delay_ms, str(log.dir)))

    # Upkeep.

    def retention(self, now_ms: int) -> None:
        """Drop what is due: old segments, which are only renamed, silent producers, idle descriptors."""
        for directory in self._online():
            try:
                for key, log in list(directory.logs.items()):
                    if key not in self._being_compacted and directory.error is None:
                        self._apply_retention(log, now_ms)
                    log.producer_state.expire(now_ms)
                    log.drop_idle_files()
            except OSError as error:
                self.fail(directory.path, error)

    def _apply_retention(self, log: Log, now_ms: int) -> None:
        try:
            log.delete_old_segments(now_ms)
        except ApiError as error:
            _log.warning("no segments of %s-%d were deleted: %s", log.topic, log.partition, error)

    def removal_jobs(self, now_ms: int) -> Iterator[DiskJob]:
        """Remove the files and partition directories that were deleted file.delete.delay.ms ago."""
        for directory in self._online():
            files = [path for log in directory.logs.values() for path in log.take_due_files(now_ms)]
            trees = [path for due_ms, path in directory.doomed if due_ms <= now_ms]
            directory.doomed = [each for each in directory.doomed if each[0] > now_ms]
            if files or trees:
                yield DiskJob(directory.path, partial(self._remove, files, trees), _nothing)

    def _remove(self, files: list[str], trees: list[str]) -> None:
        for path in files:
            remove_if_exists(self._fs, path)
        for path in trees:
            remove_tree(self._fs, path)

    def remove_deleted(self, now_ms: int) -> None:
        """Carry out the removal jobs in this thread."""
        for job in self.removal_jobs(now_ms):
            self.carry_out(job)

    def checkpoint_jobs(self) -> Iterator[DiskJob]:
        """Write the recovery points, log starts, high watermarks and cleaner offsets that have changed."""
        for directory in self._online():
            changed = directory.changed_checkpoints()
            if changed:
                run = partial(directory.write_checkpoints, changed)
                yield DiskJob(directory.path, run, partial(directory.written.update, changed))

    def checkpoint(self, now_ms: int) -> None:
        """Carry out the checkpoint jobs in this thread."""
        for job in self.checkpoint_jobs():
            self.carry_out(job)

    def flush_jobs(self, now_ms: int = 0) -> Iterator[DiskJob]:
        """Make durable what has been rolled, so that a crash need not recover it; and every flush.ms all there is."""
        for directory in self._online():
            for log in list(directory.logs.values()):
                is_due = now_ms - log.flushed_ms >= log.config.flush_ms
                if is_due:
                    log.flushed_ms = now_ms
                job = log.flush_job(include_active=is_due)
                if job is not None:
                    yield DiskJob(directory.path, job.run, partial(log.flushed, job))

    def clean_job(self, now_ms: int) -> DiskJob | None:
        """A round of compaction for the dirtiest log that is due, if any; never two rounds for one log at a time."""
        due: list[tuple[CleanTask, _Directory, Log]] = []
        for directory in self._online():
            for key, log in directory.logs.items():
                if log.config.is_compacted and key not in self._being_compacted and key not in self._damaged:
                    checkpoint = directory.cleaned_up_to(key)
                    log.truncated_to = LONG_MAX
                    task = plan(log, self._fs, checkpoint, now_ms, yield_to_others=partial(time.sleep, 0))
                    if task is not None and task.is_due:
                        due.append((task, directory, log))
        if not due:
            return None
        task, directory, log = max(due, key=lambda each: each[0].ratio)
        self._being_compacted.add((log.topic, log.partition))
        results: list[CleanResult] = []
        run = partial(self._compact, task, log, results)
        return DiskJob(directory.path, run, partial(self._compacted, task, log, results, directory))

    def _compact(self, task: CleanTask, log: Log, results: list[CleanResult]) -> None:
        try:
            results.append(task.run())
        except (CorruptBatchError, ApiError, FileNotFoundError) as error:
            _log.warning("%s-%d could not be compacted: %s", log.topic, log.partition, error)

    def _compacted(self, task: CleanTask, log: Log, results: list[CleanResult], directory: _Directory) -> None:
        key = log.topic, log.partition
        self._being_compacted.discard(key)
        if directory.logs.get(key) is not log:
            return
        if not results:
            self._damaged.add(key)
            return
        try:
            if swap_in(log, task, results[0]):
                directory.cleaner_offsets[key] = results[0].end_offset
        except OSError as error:
            self.fail(directory.path, error)

    def clean(self, now_ms: int) -> None:
        """Compact what is due, in this thread."""
        while (job := self.clean_job(now_ms)) is not None:
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

    def _online(self) -> list[_Directory]:
        return [directory for directory in self._directories if directory.error is None]

    def offline_paths(self) -> list[str]:
        return [directory.path for directory in self._directories if directory.error is not None]

    def fail(self, path: str, error: OSError) -> None:
        """The disk under `path` has failed: its logs refuse everything from now on."""
        directory = next(each for each in self._directories if each.path == path)
        if directory.error is not None:
            return
        directory.error = error
        _log.error("the data directory %s is offline: %s", path, error)
        for log in directory.logs.values():
            log.is_offline = True
        if self.on_offline is not None:
            self.on_offline(path, list(directory.logs))

    def close(self, clean: bool = True) -> None:
        """Close every log. A clean close makes everything durable and says so; otherwise the next start recovers."""
        for directory in self._online() if clean else []:
            try:
                self._close_logs(list(directory.logs.values()))
                directory.write_checkpoints(directory.changed_checkpoints())
                replace_file(self._fs, f"{directory.path}/{CLEAN_SHUTDOWN}", CLEAN_SHUTDOWN_CONTENT)
            except OSError as error:
                self.fail(directory.path, error)
            except ApiError:
                _log.warning("%s was not closed cleanly", directory.path)
        self.logs.clear()
        self._unlock()

    def _close_logs(self, logs: list[Log]) -> None:
        """In several threads, because a journal commits the syncs of many files as fast as that of one."""
        if self._closing_threads == 1 or len(logs) <= 1:
            for log in logs:
                log.close()
            return
        with ThreadPoolExecutor(self._closing_threads) as threads:
            for _ in threads.map(Log.close, logs):
                pass  # Each result is asked for, so that the first failure is raised.

    def _unlock(self) -> None:
        for directory in self._directories:
            directory.logs.clear()
            if directory.lock_fd >= 0:
                self._fs.close(directory.lock_fd)
                directory.lock_fd = -1


def _topic_id_in(fs: Fs, directory: str) -> bytes:
    """The log's topic id; a damaged file counts as none, since the cluster's metadata knows it too."""
    try:
        return read_topic_id(fs, f"{directory}/{PARTITION_METADATA}")
    except StorageError as error:
        _log.warning("ignoring a topic id: %s", error)
        return ids.ZERO_ID


def _nothing() -> None:
    """What is left to do after a removal."""


class _Meta(NamedTuple):
    broker_id: int
    cluster_id: str


def _read_meta(fs: Fs, path: str) -> _Meta | None:
    """Whose data a directory holds; None when it is new. Raises StorageError for a file kpy cannot go by."""
    file = f"{path}/{META_PROPERTIES}"
    try:
        text = read_file(fs, file).decode("utf-8")
        lines = [line.strip() for line in text.splitlines()]
        properties = dict(line.split("=", 1) for line in lines if line and not line.startswith(("#", "!")))
        if properties.get("version", "0") != "0":
            raise StorageError(
                f"{file} has version {properties['version']}; kpy uses version 0, as brokers with ZooKeeper do"
            )
        return _Meta(int(properties["broker.id"]), properties["cluster.id"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:
        raise StorageError(f"{file} is damaged: {error}. It must give version, broker.id and cluster.id") from error
