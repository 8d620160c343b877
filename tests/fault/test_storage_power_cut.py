"""After a power cut the log is a prefix of what was appended, and holds at least what had been flushed.

With flush.messages=1 it holds all that was acknowledged or readable.
"""

import random
import struct
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fs import MemoryFs

from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import PartitionImage
from kpy.records.batch import NewRecord, build_batch, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.group_commit import GroupCommit
from kpy.replica.partition import Partition, Surroundings
from kpy.replica.purgatory import Purgatory
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=0)
TOPIC_ID = bytes(range(16))


def open_dirs(fs: MemoryFs, config: LogConfig = CONFIG) -> LogDirs:
    return LogDirs.open(
        ["/data"],
        broker_id=1,
        cluster_id=None,
        now_ms=0,
        config_for=lambda topic: config,
        rng=random.Random(1),
        fs=fs,
    )


def read_all(log: Log) -> list[bytes]:
    found: list[bytes] = []
    offset = log.log_start_offset
    while (region := log.read(offset, 500, log.log_end_offset, True)) is not None:
        for header, data in iter_batches(region.read()):
            found.append(bytes(data))
            offset = header.last_offset + 1
    return found


steps = st.lists(
    st.sampled_from(
        ["append", "append", "append", "append", "idempotent", "flush", "roll", "checkpoint", "leader", "close"]
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(lives=st.lists(steps, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_power_cut_leaves_a_prefix_that_holds_all_that_was_flushed(lives: list[list[str]], seed: int) -> None:
    rng = random.Random(seed)
    fs = MemoryFs()
    dirs = open_dirs(fs)
    dirs.create_log("t", 0, TOPIC_ID, CONFIG).flush()
    fs.sync_dir("/data")
    appended: list[bytes] = []
    epoch = 0
    for life in lives:
        log = dirs.logs["t", 0]
        flushed = 0
        for step in life:
            if step in ("append", "idempotent"):
                producer_id = 5 if step == "idempotent" else -1
                known = log.producer_state.producers.get(5)
                sequence = (known.last_sequence + 1 if known else 0) if producer_id == 5 else -1
                data = build_batch(
                    [NewRecord(rng.randrange(100), b"k", rng.randbytes(rng.randrange(80)))],
                    producer_id=producer_id,
                    producer_epoch=0 if producer_id == 5 else -1,
                    base_sequence=sequence,
                )
                info = log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), epoch, 0)
                appended.append(struct.pack(">qii", info.base_offset, len(data) - 12, epoch) + data[16:])
            elif step == "flush":
                log.flush()
                flushed = len(appended)
            elif step == "roll":
                log.roll()
            elif step == "checkpoint":
                for job in dirs.flush_jobs():
                    dirs.carry_out(job)
                dirs.checkpoint(0)
            elif step == "leader":
                epoch += 1
            elif step == "close":
                dirs.close()
                flushed = len(appended)
                dirs = open_dirs(fs)
                log = dirs.logs["t", 0]
        del dirs
        fs = fs.power_cut(rng)
        dirs = open_dirs(fs)
        log = dirs.logs["t", 0]
        survived = read_all(log)
        assert survived == appended[: len(survived)]
        assert len(survived) >= flushed
        assert log.log_end_offset == len(survived)
        assert not log.is_offline
        headers = [read_header(data) for data in survived]
        for header in headers:
            assert log.leader_epochs.epoch_for(header.base_offset) == header.partition_leader_epoch
        sequences = [header.base_sequence for header in headers if header.producer_id == 5]
        producer = log.producer_state.producers.get(5)
        assert (producer.last_sequence if producer else None) == (sequences[-1] if sequences else None)
        appended = survived
        epoch += 1
    dirs.close()


FLUSHED = LogConfig(segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=0, flush_messages=1)


class FlushedLife:
    """A broker's life between two power cuts, with flush.messages=1. Syncs run and end when a step says so."""

    def __init__(self, fs: MemoryFs, epoch: int) -> None:
        self.dirs = open_dirs(fs, FLUSHED)
        log = self.dirs.logs.get(("t", 0)) or self.dirs.create_log("t", 0, TOPIC_ID, FLUSHED)
        self.topic_id = log.topic_id
        if log.topic_id == ZERO_ID:
            log.assign_topic_id(TOPIC_ID)
        self.survived = read_all(log)
        assert log.recovery_point == log.log_end_offset
        self._syncing: list[tuple[Callable[[], None], Callable[[OSError | None], None]]] = []
        self._synced: list[Callable[[OSError | None], None]] = []
        self._epoch = epoch
        surroundings = Surroundings(
            broker_id=1,
            purgatory=Purgatory(),
            group_commit=GroupCommit(self._begin),
            clock_ms=lambda: 0,
            lag_time_max_ms=lambda: 30_000,
            is_alive=lambda broker_id: broker_id == 1,
            propose=lambda partition, change: None,
            committed=lambda partition: None,
        )
        self.partition = Partition("t", self._image(), log, surroundings)
        self.acknowledged = 0

    def _image(self) -> PartitionImage:
        return PartitionImage(0, 1, self._epoch, (1,), (1,))

    def _begin(self, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        self._syncing.append((job, done))

    def step(self, step: str, rng: random.Random) -> None:
        match step:
            case "append":
                data = build_batch([NewRecord(rng.randrange(100), b"k", rng.randbytes(rng.randrange(80)))])
                info = self.partition.append(ValidBatch(read_header(data), memoryview(data), -1), 1, 0)
                self.partition.when_flushed(lambda error: self._told(info.last_offset + 1, error))
            case "sync" if self._syncing:
                job, done = self._syncing.pop(0)
                job()
                self._synced.append(done)
            case "end" if self._synced:
                self._synced.pop(0)(None)
            case "settle":
                while self._syncing or self._synced:
                    self.step("sync", rng)
                    self.step("end", rng)
            case "roll":
                self.partition.log.roll()
            case "leader":
                self._epoch += 1
                self.partition.lead_or_follow(self._image())
            case "checkpoint":
                self.dirs.checkpoint(0)
            case _:
                pass

    def _told(self, end_offset: int, error: ErrorCode) -> None:
        assert error is ErrorCode.NONE
        self.acknowledged = max(self.acknowledged, end_offset)


flushed_steps = st.lists(
    st.sampled_from(["append", "append", "append", "sync", "end", "settle", "settle", "roll", "leader", "checkpoint"]),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(lives=st.lists(flushed_steps, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_with_flush_messages_1_a_power_cut_takes_nothing_acknowledged_or_readable(
    lives: list[list[str]], seed: int
) -> None:
    rng = random.Random(seed)
    fs = MemoryFs()
    epoch = promised = 0
    topic_id_is_promised = False
    for steps_of_life in [*lives, []]:
        life = FlushedLife(fs, epoch)
        log = life.partition.log
        assert len(life.survived) >= promised
        assert log.high_watermark == log.log_end_offset
        assert life.topic_id == TOPIC_ID or not topic_id_is_promised
        for batch in life.survived:
            header = read_header(batch)
            assert log.leader_epochs.epoch_for(header.base_offset) == header.partition_leader_epoch
        for step in steps_of_life:
            life.step(step, rng)
        promised = max(life.acknowledged, log.high_watermark)
        topic_id_is_promised = topic_id_is_promised or life.acknowledged > 0
        epoch += 10
        del life, log
        fs = fs.power_cut(rng)
