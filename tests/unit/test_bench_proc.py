"""What the benchmark reads of processes."""

import os
import subprocess
import sys

from bench.proc import cpu_seconds

COUNTS_ITS_TIME = """
import sys, time
while time.process_time() < 0.05: pass
print(time.process_time_ns(), flush=True)
sys.stdin.read()
"""


def test_the_cpu_time_of_a_process_is_told_to_the_nanosecond_with_that_of_its_child() -> None:
    own_before = cpu_seconds(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", COUNTS_ITS_TIME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        as_it_says = int(child.stdout.readline()) / 1e9
        measured = cpu_seconds(child.pid)
        with_the_child = cpu_seconds(os.getpid())
        child.stdin.close()

    assert measured >= as_it_says
    assert round(measured * 1e9) % 10_000_000 != 0  # Not in ticks.
    assert with_the_child >= own_before + measured
