"""A broker as its first user starts it: no flag, no file, localhost:9092."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.harness import BACKENDS, DEFAULT_SETTINGS, START_TIMEOUT_S, STOP_TIMEOUT_S, against, wait_until

DEFAULT_PORT = 9092


def port_is_open() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", DEFAULT_PORT), timeout=1.0):
            return True
    except OSError:
        return False


@pytest.fixture
def default_broker(tmp_path: Path) -> Iterator[str]:
    """The address of a kpy that was told nothing but where home is; Apache Kafka cannot do without some settings."""
    assert not port_is_open(), f"port {DEFAULT_PORT} is taken, and this test is about a broker on its default port"
    (data_dir := tmp_path / "data").mkdir()
    if against() == "kpy":
        command = [sys.executable, "-m", "kpy", "start"]
    else:
        command = BACKENDS[against()].command(DEFAULT_PORT, data_dir, DEFAULT_SETTINGS)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    log_path = tmp_path / "broker.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: process.poll() is not None or port_is_open(), "the broker listens", START_TIMEOUT_S)
        assert process.poll() is None, f"the broker ended at start:\n{log_path.read_text()}"
        yield f"localhost:{DEFAULT_PORT}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        finally:
            process.kill()
            # pytest shows this with a failed test.
            print(log_path.read_text())
    assert process.returncode in BACKENDS[against()].clean_exit_codes
