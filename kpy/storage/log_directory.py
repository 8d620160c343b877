"""One data directory: whose it is, its checkpoints, and the names that partitions have in it.

`meta.properties` says whose data it is, `.lock` keeps other processes out, and four checkpoint files hold an offset a
partition. Beside the directories of partitions there are those of Kafka's class LocalLog: `-future` for a copy that is
to replace a log in another data directory, `-delete` for a log that is about to be removed, and `-stray` for one that
nobody knows: it is never read again and never removed either.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from kpy import ids
from kpy.errors import StorageError
from kpy.storage.checkpoints import (
    CLEANER_OFFSETS,
    HIGH_WATERMARKS,
    LOG_START_OFFSETS,
    RECOVERY_POINTS,
    TopicPartition,
    read_offsets,
    read_topic_id,
    write_offsets,
)
from kpy.storage.disk_job import DiskJob
from kpy.storage.fs import Fs, read_file, replace_file
from kpy.storage.log import Log

LOCK = ".lock"
META_PROPERTIES = "meta.properties"
CLEAN_SHUTDOWN = ".kafka_cleanshutdown"
CLEAN_SHUTDOWN_CONTENT = b'{"version":0,"brokerEpoch":-1}'

DELETE_SUFFIX = "-delete"
FUTURE_SUFFIX = "-future"
STRAY_SUFFIX = "-stray"
MAX_NAME_LENGTH = 255

PARTITION_DIR = re.compile(r"([a-zA-Z0-9._-]{1,249})-(\d{1,10})")
_FUTURE_NAME = re.compile(rf"{PARTITION_DIR.pattern}\.[^.]+{FUTURE_SUFFIX}")
_EXPECTED = {"lost+found"}
"""What a file system itself puts into a directory."""

_log = logging.getLogger(__name__)


def partition_name(key: TopicPartition) -> str:
    """The name of a partition's directory."""
    return f"{key[0]}-{key[1]}"


def aside_name(key: TopicPartition, unique: bytes, suffix: str) -> str:
    """The name of a directory that is going, or is set aside; a long topic's name is cut."""
    end = f"-{key[1]}.{unique.hex()}{suffix}"
    return key[0][: MAX_NAME_LENGTH - len(end)] + end


def future_name(key: TopicPartition, unique: bytes) -> str:
    """The name of a copy's directory. It may be too long for a file system, as the topic must be readable from it."""
    return f"{partition_name(key)}.{unique.hex()}{FUTURE_SUFFIX}"


class Found(NamedTuple):
    """The directories in a data directory, by what they are."""

    current: dict[TopicPartition, str]
    future: list[tuple[TopicPartition, str]]
    doomed: list[str]


class Meta(NamedTuple):
    """What meta.properties says."""

    broker_id: int
    cluster_id: str


def _nobody_hears(error: OSError) -> None:
    """For who only looks at a directory, and has no logs in it."""


class LogDirectory:
    """One data directory and the logs in it. `error` is set once its disk has failed."""

    def __init__(self, fs: Fs, path: str, on_disk_error: Callable[[OSError], None] = _nobody_hears) -> None:
        self.fs = fs
        self.path = path
        self.on_disk_error = on_disk_error
        """What its logs tell when the disk fails."""
        self.lock_fd = -1
        self.error: OSError | None = None
        self.logs: dict[TopicPartition, Log] = {}
        self.futures: dict[TopicPartition, Log] = {}
        self.doomed: list[tuple[int, str]] = []
        """When each path is to be removed."""
        self.cleaner_offsets: dict[TopicPartition, int] = {}
        self.was_clean = False
        """Whether the last stop was a clean one."""
        self.found: dict[str, dict[TopicPartition, int] | None] = {}
        """What the checkpoints said at the start; None for one that was missing or damaged."""
        self.found_futures: list[tuple[TopicPartition, str]] = []
        self._written: dict[str, dict[TopicPartition, int]] = {}
        self._jobs_so_far = 0
        self._newest_job: dict[str, int] = {}
        self._writing = threading.Lock()

    def find(self) -> Found:
        """What there is. Foreign directories are named in a warning and left alone."""
        found = Found({}, [], [])
        for name in sorted(self.fs.list(self.path)):
            if not self.fs.is_dir(f"{self.path}/{name}"):
                continue
            if match := PARTITION_DIR.fullmatch(name):
                found.current[sys.intern(match[1]), int(match[2])] = name
            elif match := _FUTURE_NAME.fullmatch(name):
                found.future.append(((match[1], int(match[2])), name))
            elif name.endswith(DELETE_SUFFIX):
                found.doomed.append(name)
            elif name.endswith(STRAY_SUFFIX):
                _log.warning("%s/%s was set aside; kpy neither reads nor removes it", self.path, name)
            elif name not in _EXPECTED:
                _log.warning("%s/%s is no partition's directory; leaving it alone", self.path, name)
        return found

    def read_state(self, partitions: Iterable[TopicPartition]) -> None:
        """Whether the last stop was clean, and the checkpoints. The marker is gone then, so that a crash is none.

        What the checkpoints say of these partitions is kept under the very tuples that are given: of thousands, each
        file's own would take some 100 bytes a partition.
        """
        marker = f"{self.path}/{CLEAN_SHUTDOWN}"
        self.was_clean = self.fs.exists(marker)
        if self.was_clean:
            self.fs.remove(marker)
            self.fs.sync_dir(self.path)
        keys = {key: key for key in partitions}
        for name in (RECOVERY_POINTS, LOG_START_OFFSETS, HIGH_WATERMARKS, CLEANER_OFFSETS):
            self.found[name] = self._read_checkpoint(name, keys)
        self.cleaner_offsets = dict(self.found[CLEANER_OFFSETS] or {})

    def found_offset(self, checkpoint: str, key: TopicPartition) -> int:
        return (self.found.get(checkpoint) or {}).get(key, 0)

    def write_clean_marker(self) -> None:
        replace_file(self.fs, f"{self.path}/{CLEAN_SHUTDOWN}", CLEAN_SHUTDOWN_CONTENT)

    # Whose it is.

    def read_meta(self) -> Meta | None:
        """Whose data this is; None when it is new. Raises StorageError for a file kpy cannot go by."""
        file = f"{self.path}/{META_PROPERTIES}"
        try:
            text = read_file(self.fs, file).decode("utf-8")
            lines = [line.strip() for line in text.splitlines()]
            properties = dict(line.split("=", 1) for line in lines if line and not line.startswith(("#", "!")))
            if properties.get("version", "0") != "0":
                raise StorageError(
                    f"{file} has version {properties['version']}; kpy uses version 0, as brokers with ZooKeeper do"
                )
            return Meta(int(properties["broker.id"]), properties["cluster.id"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise StorageError(f"{file} is damaged: {error}. It must give version, broker.id and cluster.id") from error

    def write_meta(self, meta: Meta) -> None:
        """Mark a new directory as this broker's."""
        with suppress(PermissionError):  # Whoever may not open the parent has not just made its entry.
            self.fs.sync_dir(os.path.dirname(self.path))
        write_offsets(self.fs, f"{self.path}/{RECOVERY_POINTS}", {})
        text = f"version=0\nbroker.id={meta.broker_id}\ncluster.id={meta.cluster_id}\n"
        replace_file(self.fs, f"{self.path}/{META_PROPERTIES}", text.encode())

    def topic_id_in(self, name: str) -> bytes:
        """The topic id of the log in directory `name`; a damaged file counts as none: the metadata knows it too."""
        try:
            return read_topic_id(self.fs, f"{self.path}/{name}")
        except StorageError as error:
            _log.warning("ignoring a topic id: %s", error)
            return ids.ZERO_ID

    # Checkpoints.

    def _read_checkpoint(
        self, name: str, keys: Mapping[TopicPartition, TopicPartition]
    ) -> dict[TopicPartition, int] | None:
        """A checkpoint's offsets; None when it is missing or damaged: the logs are then read instead."""
        try:
            read = read_offsets(self.fs, f"{self.path}/{name}")
            self._written[name] = offsets = {keys.get(key, key): offset for key, offset in read.items()}
            return offsets
        except StorageError as error:
            _log.warning("ignoring a checkpoint: %s", error)
        except FileNotFoundError:
            pass
        return None

    def checkpoint_job(self, *names: str) -> DiskJob | None:
        """Writes the named checkpoints, or all, as far as they have changed; None if they have not."""
        changed = {
            name: offsets
            for name, offsets in self._wanted().items()
            if offsets != self._written.get(name) and (not names or name in names)
        }
        if not changed:
            return None
        self._jobs_so_far += 1
        number = self._jobs_so_far
        return DiskJob(self.path, partial(self._write, changed, number), partial(self._note, changed, number))

    def write_checkpoints(self) -> None:
        """`checkpoint_job`, carried out in this thread."""
        job = self.checkpoint_job()
        if job is not None:
            job.run()
            job.done()

    def _wanted(self) -> Mapping[str, dict[TopicPartition, int]]:
        """The content of each checkpoint. Copies that are under way are in them too, as in Apache Kafka."""
        logs = {**self.futures, **self.logs}.items()
        return {
            RECOVERY_POINTS: {key: log.recovery_point for key, log in logs},
            HIGH_WATERMARKS: {key: log.high_watermark for key, log in logs},
            LOG_START_OFFSETS: {
                key: log.log_start_offset for key, log in logs if log.log_start_offset > log.segment_base_offsets()[0]
            },
            CLEANER_OFFSETS: {key: self.cleaned_up_to(key) or 0 for key in self.cleaner_offsets if key in self.logs},
        }

    def _write(self, changed: Mapping[str, dict[TopicPartition, int]], number: int) -> None:
        """Two jobs may run at once, in two threads; what the later one knows is never overwritten by the earlier."""
        with self._writing:
            for name, offsets in changed.items():
                if number > self._newest_job.get(name, 0):
                    write_offsets(self.fs, f"{self.path}/{name}", offsets)
                    self._newest_job[name] = number

    def _note(self, changed: Mapping[str, dict[TopicPartition, int]], number: int) -> None:
        for name, offsets in changed.items():
            if self._newest_job.get(name) == number:
                self._written[name] = offsets

    def cleaned_up_to(self, key: TopicPartition) -> int | None:
        """Where compaction goes on; what has been truncated and written anew since is dirty again."""
        if key in self.cleaner_offsets:
            self.cleaner_offsets[key] = min(self.cleaner_offsets[key], self.logs[key].truncated_to)
        return self.cleaner_offsets.get(key)
