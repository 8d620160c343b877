"""Compaction with crashes and power cuts at any point keeps the last value of every key, and never brings one back."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_fs import Crash, FailingFs, MemoryFs, UnsyncedFs

from kpy.records.batch import NewRecord, build_batch, iter_records, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.fs import Fs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(
    cleanup_policy=frozenset({"compact"}),
    segment_bytes=500,
    index_interval_bytes=100,
    delete_retention_ms=10,
    file_delete_delay_ms=0,
    min_cleanable_dirty_ratio=0.0,
)
TOPIC_ID = bytes(range(16))

Model = list[tuple[int, bytes, bytes | None]]


def open_dirs(root: str, fs: Fs, config: LogConfig = CONFIG) -> LogDirs:
    return LogDirs.open(
        [root],
        broker_id=1,
        cluster_id="AAAAAAAAAAAAAAAAAAAAAA",
        now_ms=0,
        config_for=lambda topic: config,
        rng=random.Random(1),
        fs=fs,
    )


def append(log: Log, model: Model, rng: random.Random) -> None:
    """Append a batch of up to three puts and deletions of five keys."""
    records = [
        NewRecord(1, b"key %d" % rng.randrange(5), rng.choice([None, rng.randbytes(rng.randrange(60))]))
        for _ in range(rng.randrange(1, 4))
    ]
    data = build_batch(records)
    info = log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)
    for position, record in enumerate(records):
        model.append((info.base_offset + position, record.key or b"", record.value))
    log.high_watermark = log.log_end_offset


def check(log: Log, model: Model) -> None:
    """The log holds some of the model's records, at their offsets, and gives every key the model's last value."""
    batches = log.read_batches(log.log_start_offset, log.log_end_offset)
    found = [(each.offset, each.key, each.value) for _, data in batches for each in iter_records(data)]
    assert [each[0] for each in found] == sorted({each[0] for each in found})
    assert set(found) <= set(model)
    assert table(found) == table(model)


def table(records: Model) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for _, key, value in records:
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
    return values


def test_crash_at_any_operation_of_compaction_keeps_every_key(tmp_path: Path) -> None:
    def live(root: Path, fail_at: int) -> tuple[FailingFs, Model]:
        """Fill a log, then crash during its compaction, at the given operation of it."""
        fs = FailingFs(1_000_000)
        dirs = open_dirs(str(root), fs)
        log = dirs.create_log("t", 0, TOPIC_ID, CONFIG)
        model: Model = []
        rng = random.Random(5)
        for _ in range(50):
            append(log, model, rng)
        log.roll()
        dirs.clean(0)
        for _ in range(20):
            append(log, model, rng)
        log.roll()
        fs.operations, fs.fail_at = 0, fail_at
        if fail_at < 1000:
            with pytest.raises(Crash):
                dirs.clean(20)
        else:
            dirs.clean(20)
            dirs.close()
        return fs, model

    operations = live(tmp_path / "count", 1_000_000)[0].operations
    assert operations > 30
    for fail_at in range(20):
        model = live(tmp_path / str(fail_at), fail_at)[1]
        dirs = open_dirs(str(tmp_path / str(fail_at)), UnsyncedFs())
        log = dirs.logs["t", 0]
        assert log.log_end_offset == model[-1][0] + 1
        check(log, model)
        assert not [
            path for path in (tmp_path / str(fail_at) / "t-0").iterdir() if path.suffix in (".cleaned", ".swap")
        ]
        dirs.clean(40)
        check(log, model)
        dirs.close()


steps = st.lists(
    st.sampled_from(["append", "append", "append", "roll", "clean", "clean", "retention", "checkpoint", "close"]),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(lives=st.lists(steps, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_power_cut_during_compaction_keeps_the_last_value_of_every_key(lives: list[list[str]], seed: int) -> None:
    rng = random.Random(seed)
    fs = MemoryFs()
    dirs = open_dirs("/data", fs, CONFIG)
    dirs.create_log("t", 0, TOPIC_ID, CONFIG)
    fs.sync_dir("/data")
    model: Model = []
    now_ms = 0
    for life in lives:
        log = dirs.logs["t", 0]
        for step in life:
            now_ms += 4
            if step == "append":
                append(log, model, rng)
                log.flush()  # So that a power cut can only hit what compaction does.
            elif step == "roll":
                log.roll()
            elif step == "clean":
                dirs.clean(now_ms)
                check(log, model)
            elif step == "retention":
                dirs.retention(now_ms)
                dirs.remove_deleted(now_ms)
            elif step == "checkpoint":
                dirs.checkpoint(0)
            elif step == "close":
                dirs.close()
                dirs = open_dirs("/data", fs, CONFIG)
                log = dirs.logs["t", 0]
        fs = fs.power_cut(rng)
        dirs = open_dirs("/data", fs, CONFIG)
        log = dirs.logs["t", 0]
        assert log.log_end_offset == (model[-1][0] + 1 if model else 0)
        log.high_watermark = log.log_end_offset
        check(log, model)
    dirs.close()
