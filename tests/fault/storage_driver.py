"""A process that does one kind of disk work, to be killed in the middle of it: `storage_driver DIRECTORY SCENARIO`.

What it has finished it says on standard output, a line each, so that the test knows what must be there afterwards.
"""

import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

PLAIN, COMPACTED, DELETED = "plain", "compacted", "deleted"
RECORDS = 40
KEYS = 4
TRUNCATED_TO = 21
SETTINGS = {"segment_bytes": 1200, "index_interval_bytes": 100, "file_delete_delay_ms": 0}
CONFIGS: Mapping[str, LogConfig] = {
    PLAIN: LogConfig(**SETTINGS, retention_bytes=1500, retention_ms=-1),  # type: ignore[arg-type]  # all are ints
    COMPACTED: LogConfig(**SETTINGS, cleanup_policy=frozenset({"compact"}), min_cleanable_dirty_ratio=0.0),  # type: ignore[arg-type]
    DELETED: LogConfig(**SETTINGS),  # type: ignore[arg-type]
}


def open_dirs(root: Path) -> LogDirs:
    return LogDirs.open(
        [root],
        broker_id=1,
        cluster_id="AAAAAAAAAAAAAAAAAAAAAA",
        now_ms=0,
        config_for=lambda topic: CONFIGS[topic],
        rng=random.Random(1),
    )


def value_at(offset: int) -> bytes:
    return b"value %d" % offset * 3


def append(log: Log) -> int:
    """One record, which its offset determines; the new log end."""
    offset = log.log_end_offset
    data = build_batch(
        [NewRecord(offset, b"key %d" % (offset % KEYS), value_at(offset))],
        producer_id=3,
        producer_epoch=0,
        base_sequence=offset,
    )
    log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), offset // 10, offset)
    log.high_watermark = log.log_end_offset
    return log.log_end_offset


def fill(root: Path) -> None:
    """The directory that every scenario starts from, cleanly closed."""
    dirs = open_dirs(root)
    for number, topic in enumerate(CONFIGS):
        log = dirs.create_log(topic, 0, bytes([number] * 16), CONFIGS[topic])
        for _ in range(RECORDS):
            append(log)
    dirs.close()


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def appends(dirs: LogDirs, count: int = 3) -> None:
    for _ in range(count):
        say("end", append(dirs.logs[PLAIN, 0]))


def roll(dirs: LogDirs) -> None:
    appends(dirs)
    dirs.logs[PLAIN, 0].roll()
    appends(dirs)


def flushing_roll(dirs: LogDirs) -> None:
    dirs.logs[PLAIN, 0].flush()
    roll(dirs)
    dirs.logs[PLAIN, 0].flush()


def compaction(dirs: LogDirs) -> None:
    dirs.clean(0)
    say("compacted")
    dirs.remove_deleted(1)


def checkpoint(dirs: LogDirs) -> None:
    appends(dirs)
    for job in dirs.flush_jobs():
        dirs.carry_out(job)
    dirs.checkpoint(0)
    appends(dirs)


def deletion(dirs: LogDirs) -> None:
    dirs.delete_log(DELETED, 0, 0)
    say("deleted")
    dirs.retention(0)
    dirs.remove_deleted(1)
    appends(dirs)


def truncation(dirs: LogDirs) -> None:
    say("truncating")
    dirs.logs[PLAIN, 0].truncate_to(TRUNCATED_TO)
    dirs.checkpoint(0)
    say("truncated")
    appends(dirs)


def stop(dirs: LogDirs) -> None:
    appends(dirs)
    dirs.close()


SCENARIOS: Mapping[str, Callable[[LogDirs], None]] = {
    each.__name__: each for each in (roll, flushing_roll, compaction, checkpoint, deletion, truncation, stop)
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[2]](open_dirs(Path(sys.argv[1])))
