"""kill -9 of a process that appends: everything it has acknowledged is there when the log is opened again."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from kpy.records.batch import iter_batches, iter_records
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

APPENDER = """
import random, sys
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

config = LogConfig(segment_bytes=20_000, index_interval_bytes=500)
dirs = LogDirs.open([sys.argv[1]], broker_id=1, cluster_id=None, now_ms=0, config_for=lambda topic: config,
                    rng=random.Random(1))
log = dirs.logs.get(("t", 0)) or dirs.create_log("t", 0, bytes(range(16)), config)
while True:
    value = b"%d" % log.log_end_offset
    data = build_batch([NewRecord(1, None, value * 20)])
    info = log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, 0)
    sys.stdout.write(f"{info.base_offset}\\n")
    sys.stdout.flush()
    if info.base_offset % 300 == 299:
        for job in dirs.flush_jobs():
            dirs.carry_out(job)
        dirs.checkpoint(0)
"""

LIVES = 4


def test_everything_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    config = LogConfig(segment_bytes=20_000, index_interval_bytes=500)
    rng = random.Random(11)
    acknowledged = -1
    for _ in range(LIVES):
        command = [sys.executable, "-c", APPENDER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 1500)):
                acknowledged = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            for line in process.stdout:
                if line.endswith("\n"):
                    acknowledged = int(line)
    dirs = LogDirs.open(
        [tmp_path],
        broker_id=1,
        cluster_id=None,
        now_ms=0,
        config_for=lambda topic: config,
        rng=random.Random(1),
    )
    log = dirs.logs["t", 0]
    assert log.log_end_offset in (acknowledged + 1, acknowledged + 2)
    offset = 0
    while (region := log.read(offset, 1 << 20, log.log_end_offset, True)) is not None:
        for header, data in iter_batches(region.read()):
            assert header.base_offset == offset
            assert [each.value for each in iter_records(data)] == [b"%d" % offset * 20]
            offset += 1
    assert offset == log.log_end_offset
    dirs.close()
