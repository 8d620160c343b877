"""The benchmark, told to stop while a broker runs: it ends its processes and leaves no files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compat.harness import wait_until

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_benchmark_that_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "bench", "--rows", "start, first", "--only", "kpy", "--no-record", "--runs", "99"]
    environment = {**os.environ, "KPY_NATIVE": "0"}  # Compiling kpy for the benchmark would take a minute.
    bench = subprocess.Popen(
        [*command, "--dir", str(tmp_path)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: list(tmp_path.glob("*/kpy/data/meta.properties")), "a broker runs")
        assert brokers_on(tmp_path)
        bench.send_signal(number)
        _, complaint = bench.communicate(timeout=60)
    finally:
        bench.kill()
    assert bench.returncode == {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: -signal.SIGINT}[number], complaint
    assert not list(tmp_path.iterdir())
    assert not brokers_on(tmp_path)


def brokers_on(directory: Path) -> list[str]:
    """The processes that were started with something in the directory, but for the benchmark."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # It has ended meanwhile.
            continue
        if any(
            word.startswith(os.fsencode(directory) + b"/") or os.fsencode(f"={directory}/") in word for word in words
        ):
            found.append(process.name)
    return found
