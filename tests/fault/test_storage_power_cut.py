"""After a power cut the log is a prefix of what was appended, and holds at least what had been flushed."""

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fs import MemoryFs

from kpy.records.batch import NewRecord, build_batch, iter_batches, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=600, index_interval_bytes=100, file_delete_delay_ms=0)
TOPIC_ID = bytes(range(16))


def open_dirs(fs: MemoryFs) -> LogDirs:
    return LogDirs.open(
        ["/data"],
        broker_id=1,
        cluster_id=None,
        now_ms=0,
        config_for=lambda topic: CONFIG,
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
