"""A broker that dies at any moment of a log's move into another data directory, by SIGKILL or with its machine."""

import random
from pathlib import Path

import pytest
from storage_fs import Crash, FailingFs, MemoryFs, UnsyncedFs

from kpy.records.batch import NewRecord, build_batch, iter_records, read_header
from kpy.records.validate import ValidBatch
from kpy.storage import mover, moves
from kpy.storage.fs import Fs
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

CONFIG = LogConfig(segment_bytes=600, index_interval_bytes=100)
KEY = ("t", 0)
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
NOW_MS = 1_000_000
EXPECTED = [b"%d " % offset + b"x" * 50 for offset in range(12)]
POWER_CUTS = 300


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "SLICE_BYTES", 300)
    monkeypatch.setattr(moves, "LAST_BYTES", 150)


def open_dirs(root: str, fs: Fs, seed: int = 1) -> LogDirs:
    return LogDirs.open(
        [f"{root}/a", f"{root}/b"],
        broker_id=1,
        cluster_id=CLUSTER_ID,
        now_ms=NOW_MS,
        config_for=lambda topic: CONFIG,
        rng=random.Random(seed),
        fs=fs,
    )


def write_log(root: str, fs: Fs) -> LogDirs:
    dirs = open_dirs(root, fs)
    log = dirs.create_log(*KEY, bytes(range(16)), CONFIG)
    for value in EXPECTED:
        data = build_batch([NewRecord(NOW_MS, None, value)])
        log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, NOW_MS)
    log.high_watermark = log.log_end_offset
    log.flush()
    dirs.checkpoint(NOW_MS)
    return dirs


def values(log: Log) -> list[bytes | None]:
    batches = log.read_batches(0, log.log_end_offset)
    return [record.value for _, data in batches for record in iter_records(data)]


def move(dirs: LogDirs) -> None:
    dirs.mover.begin(KEY, dirs.directory_at(dirs.directories[1].path), NOW_MS)
    dirs.mover.move_all(NOW_MS)
    dirs.checkpoint(NOW_MS)
    dirs.remove_deleted(NOW_MS + CONFIG.file_delete_delay_ms)


def test_move_survives_a_kill_at_every_step(tmp_path: Path) -> None:
    fail_at = 0
    outcomes: set[str] = set()
    while True:
        root = f"{tmp_path}/{fail_at}"
        write_log(root, UnsyncedFs()).close()
        dirs = None
        has_crashed = False
        try:
            dirs = open_dirs(root, FailingFs(10**9))
            fs = dirs.fs
            assert isinstance(fs, FailingFs)
            fs.fail_at = fs.operations + fail_at
            move(dirs)
        except Crash:
            has_crashed = True
        assert dirs is not None
        dirs.close(clean=False)
        after = open_dirs(root, UnsyncedFs())
        assert not after.offline_paths()
        assert values(after.logs[KEY]) == EXPECTED, f"step {fail_at}"
        outcomes.add(after.logs[KEY].dir.parent.name)
        if after.logs[KEY].dir.parent.name == "a":
            move(after)
        assert values(after.logs[KEY]) == EXPECTED, f"step {fail_at}"
        assert len(after.logs) == 1
        after.close()
        if not has_crashed:
            break
        fail_at += 1
    assert fail_at > 30
    assert outcomes == {"a", "b"}


def test_what_was_durable_survives_a_power_cut_during_and_after_a_move() -> None:
    places: set[str] = set()
    for seed in range(POWER_CUTS):
        rng = random.Random(seed)
        fs = MemoryFs()
        dirs = write_log("/data", fs)
        dirs.mover.begin(KEY, dirs.directory_at("/data/b"), NOW_MS)
        for _ in range(rng.randrange(12)):
            job = dirs.mover.job(NOW_MS)
            if job is not None:
                dirs.carry_out(job)
        if rng.random() < 0.5:
            dirs.checkpoint(NOW_MS)
        if rng.random() < 0.3:
            dirs.remove_deleted(NOW_MS + CONFIG.file_delete_delay_ms)
        after = open_dirs("/data", fs.power_cut(rng), seed)
        assert values(after.logs[KEY]) == EXPECTED, f"seed {seed}"
        places.add(after.logs[KEY].dir.parent.name)
        after.close()
    assert places == {"a", "b"}
