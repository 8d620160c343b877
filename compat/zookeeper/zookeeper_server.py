"""Apache ZooKeeper 3.8, as Apache Kafka 3.9.1 brings it: one server in a process of its own, for tests.

It does not wait for the disk, which no test outlives.
"""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compat.harness import free_port, wait_until
from compat.java.kafka_tools import java

KAFKA_VERSION = "3.9.1"
STOP_TIMEOUT_S = 10.0


class ZookeeperServer:
    """A server that may be killed, paused and started again, on the same port and data.

    It gives sessions of 2 to 20 ticks.
    """

    def __init__(self, work_dir: Path, tick_ms: int = 3_000) -> None:
        self.min_session_timeout_ms = 2 * tick_ms
        self._tick_ms = tick_ms
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._data_dir = work_dir / "zookeeper"
        self._log_path = work_dir / "zookeeper.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once: clients wait for it by themselves."""
        assert self._process is None, "ZooKeeper runs already"
        command = java(
            KAFKA_VERSION,
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.forceSync=no",
            "org.apache.zookeeper.server.ZooKeeperServerMain",
            str(self.port),
            str(self._data_dir),
            str(self._tick_ms),
        )
        self._data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Returns once it listens."""
        wait_until(self._listens, f"ZooKeeper listens at {self.address}", timeout_s=60.0)

    def kill(self) -> None:
        process = self._running()
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._process = None

    def pause(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "ZooKeeper does not run"
        return self._process

    def _listens(self) -> bool:
        assert self._running().poll() is None, self._log_path.read_text(errors="replace")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


@contextmanager
def running_zookeeper(work_dir: Path) -> Iterator[ZookeeperServer]:
    """A started server, which may not listen yet."""
    server = ZookeeperServer(work_dir)
    server.start()
    try:
        yield server
    finally:
        server.close()
