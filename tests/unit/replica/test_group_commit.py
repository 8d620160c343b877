"""flush.messages: what is acknowledged and what is readable is on disk, and one round of fsyncs serves all who wait."""

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kpy.errors import ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.group_commit import GroupCommit
from kpy.replica.partition import Partition, Surroundings
from kpy.replica.purgatory import ParkedFetch, Purgatory
from kpy.storage.fs import OsFs
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

LEADER = PartitionImage(0, 1, 0, (1,), (1,))


class Disk(OsFs):
    """Counts what is synced, and fails from some point on."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.broken = False

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def sync_dir(self, path: str) -> None:
        self.synced.append(os.path.basename(path))


class Threads:
    """Runs jobs when the test says so, one after the other."""

    def __init__(self) -> None:
        self.begun: list[tuple[Callable[[], None], Callable[[OSError | None], None]]] = []

    def __call__(self, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        self.begun.append((job, done))

    def finish_first(self) -> None:
        job, done = self.begun.pop(0)
        try:
            job()
        except OSError as error:
            done(error)
        else:
            done(None)


class Setting:
    """Partitions whose topic has some flush.messages, and what their producers and the coordinators were told."""

    def __init__(self, *roots: Path) -> None:
        self.disk = Disk()
        self.threads = Threads()
        self.purgatory = Purgatory()
        self.group_commit = GroupCommit(self.threads)
        self.committed: list[tuple[str, int]] = []
        self.dirs = LogDirs.open(
            roots,
            broker_id=1,
            cluster_id=None,
            now_ms=0,
            config_for=lambda topic: LogConfig(),
            rng=random.Random(1),
            fs=self.disk,
        )

    def partition(self, topic: str, flush_messages: int = 1) -> Partition:
        log = self.dirs.create_log(topic, 0, bytes(16), LogConfig(flush_messages=flush_messages))
        surroundings = Surroundings(
            broker_id=1,
            purgatory=self.purgatory,
            group_commit=self.group_commit,
            clock_ms=lambda: 0,
            lag_time_max_ms=lambda: 30_000,
            is_alive=lambda broker_id: broker_id == 1,
            propose=lambda partition, change: None,
            committed=self._on_commit,
        )
        return Partition(topic, LEADER, log, surroundings)

    def _on_commit(self, partition: Partition) -> None:
        self.committed.append((partition.topic, partition.high_watermark))

    def produce(self, partition: Partition, records: int = 1) -> list[ErrorCode]:
        """What the producer is told: nothing as long as it waits."""
        data = build_batch([NewRecord(1, None, b"value") for _ in range(records)])
        partition.append(ValidBatch(read_header(data), memoryview(data), -1), 1, 0)
        told: list[ErrorCode] = []
        if partition.unflushed:
            partition.when_flushed(told.append)
        else:
            told.append(ErrorCode.NONE)
        return told


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path / "a", tmp_path / "b")
    yield setting
    setting.dirs.close(clean=False)


def test_a_record_is_neither_acknowledged_nor_readable_before_it_is_on_disk(setting: Setting) -> None:
    partition = setting.partition("t")
    setting.disk.synced.clear()
    told = setting.produce(partition)
    assert (told, partition.high_watermark, partition.log.log_end_offset) == ([], 0, 1)
    setting.threads.finish_first()
    assert (told, partition.high_watermark) == ([ErrorCode.NONE], 1)
    assert setting.committed == [("t", 1)]
    assert f"{0:020d}.log" in setting.disk.synced
    assert {"t-0", "leader-epoch-checkpoint"} <= set(setting.disk.synced)


def test_who_comes_while_a_round_runs_shares_the_next_one(setting: Setting) -> None:
    partition = setting.partition("t")
    first = setting.produce(partition)
    others = [setting.produce(partition) for _ in range(20)]
    assert len(setting.threads.begun) == 1
    setting.threads.finish_first()
    assert (first, others) == ([ErrorCode.NONE], [[]] * 20)
    assert partition.high_watermark == 1
    setting.disk.synced.clear()
    setting.threads.finish_first()
    assert others == [[ErrorCode.NONE]] * 20
    assert partition.high_watermark == 21
    assert setting.disk.synced.count(f"{0:020d}.log") == 1
    assert not setting.threads.begun


def test_partitions_of_one_directory_share_rounds_and_directories_do_not_wait_for_each_other(setting: Setting) -> None:
    here, there, here_too = setting.partition("t"), setting.partition("u"), setting.partition("v")
    assert here.log.data_dir == here_too.log.data_dir != there.log.data_dir
    told = [setting.produce(each) for each in (here, there, here_too)]
    assert len(setting.threads.begun) == 2
    setting.threads.begun.reverse()
    setting.threads.finish_first()
    assert told == [[], [ErrorCode.NONE], []]
    setting.threads.finish_first()
    setting.threads.finish_first()
    assert told == [[ErrorCode.NONE]] * 3


def test_flush_messages_above_one_leaves_that_many_less_one_off_the_disk(setting: Setting) -> None:
    partition = setting.partition("t", flush_messages=3)
    assert setting.produce(partition) == [ErrorCode.NONE]
    assert setting.produce(partition) == [ErrorCode.NONE]
    assert not setting.threads.begun
    third, fourth = setting.produce(partition), setting.produce(partition)
    assert (third, fourth, partition.high_watermark) == ([], [], 2)
    setting.threads.finish_first()
    assert (third, fourth, partition.high_watermark) == ([ErrorCode.NONE], [ErrorCode.NONE], 4)
    assert partition.log.recovery_point == 3


def test_a_batch_of_more_records_than_flush_messages_waits_as_a_whole(setting: Setting) -> None:
    partition = setting.partition("t", flush_messages=3)
    told = setting.produce(partition, records=10)
    assert (told, partition.high_watermark) == ([], 0)
    setting.threads.finish_first()
    assert (told, partition.high_watermark) == ([ErrorCode.NONE], 10)


def test_a_sync_that_fails_is_final_and_everybody_who_waits_is_told(setting: Setting) -> None:
    failing, bystander = setting.partition("t"), setting.partition("u")
    in_round, behind = setting.produce(failing), setting.produce(failing)
    setting.disk.broken = True
    setting.threads.finish_first()
    assert in_round == behind == [ErrorCode.KAFKA_STORAGE_ERROR]
    assert failing.log.is_offline
    assert failing.high_watermark == 0
    setting.disk.broken = False
    syncs = len(setting.disk.synced)
    while setting.threads.begun:
        setting.threads.finish_first()
    failing.log.is_offline = False
    again = failing.log.flush_job(include_active=True)
    assert again is not None
    with pytest.raises(OSError, match="Input/output error"):
        again.run()
    assert len(setting.disk.synced) == syncs
    assert not bystander.log.is_offline
    assert setting.produce(bystander) == []
    setting.threads.finish_first()
    assert bystander.high_watermark == 1


def test_who_waits_for_a_partition_that_is_deleted_is_sent_away(setting: Setting) -> None:
    partition = setting.partition("t")
    told = setting.produce(partition)
    partition.resign()
    setting.dirs.delete_log("t", 0, 0)
    assert told == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    setting.threads.finish_first()
    assert told == [ErrorCode.NOT_LEADER_OR_FOLLOWER]
    assert not setting.threads.begun


def test_a_parked_fetch_counts_the_bytes_that_have_become_readable(setting: Setting) -> None:
    partition = setting.partition("t")
    finished: list[int] = []
    setting.produce(partition)
    size = partition.log.size_bytes
    fetch = ParkedFetch([partition], 2 * size, lambda: finished.append(partition.high_watermark))
    partition.waiting[fetch] = None
    setting.produce(partition)
    setting.threads.finish_first()
    assert not finished
    setting.threads.finish_first()
    assert finished == [2]


def test_a_metadata_change_does_not_make_readable_what_is_not_on_disk(setting: Setting) -> None:
    partition = setting.partition("t")
    told = setting.produce(partition)
    partition.lead_or_follow(PartitionImage(0, 1, 1, (1,), (1,)))
    assert partition.high_watermark == 0
    setting.threads.finish_first()
    assert (told, partition.high_watermark) == ([ErrorCode.NONE], 1)
    partition.lead_or_follow(PartitionImage(0, 1, 2, (1,), (1,)))
    setting.produce(partition)
    setting.disk.synced.clear()
    setting.threads.finish_first()
    assert "leader-epoch-checkpoint" in setting.disk.synced


def test_a_segment_that_begins_while_a_round_runs_has_its_name_synced_by_the_next(setting: Setting) -> None:
    partition = setting.partition("t")
    setting.produce(partition)
    partition.log.roll()
    setting.produce(partition)
    setting.threads.finish_first()
    setting.disk.synced.clear()
    setting.threads.finish_first()
    assert {"t-0", f"{0:020d}.index", f"{1:020d}.log"} <= set(setting.disk.synced)
