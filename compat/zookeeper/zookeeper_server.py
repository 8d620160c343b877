"""Apache ZooKeeper 3.8, as Apache Kafka 3.9.1 brings it: one server in a process of its own, for tests.

It does not wait for the disk, which no test outlives.
"""

import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from compat.harness import free_port, wait_until
from compat.java.kafka_tools import java

KAFKA_VERSION = "3.9.1"
STOP_TIMEOUT_S = 10.0


class ZookeeperServer:
    """A server that may be killed, paused and started again, on the same port and data.

    It gives sessions of 2 to 20 ticks. `flags` are for the JVM: ZooKeeper's settings are system properties too. Apache
    Kafka 2.8.2 brings ZooKeeper 3.5.
    """

    def __init__(
        self, work_dir: Path, tick_ms: int = 3_000, flags: Sequence[str] = (), kafka_version: str = KAFKA_VERSION
    ) -> None:
        self.min_session_timeout_ms = 2 * tick_ms
        self._tick_ms = tick_ms
        self._flags = flags
        self._kafka_version = kafka_version
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._data_dir = work_dir / "zookeeper"
        self._log_path = work_dir / "zookeeper.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once."""
        assert self._process is None, "ZooKeeper runs already"
        command = java(
            self._kafka_version,
            "-Dzookeeper.admin.enableServer=false",
            "-Dzookeeper.forceSync=no",
            *self._flags,
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
def listening(server: ZookeeperServer) -> Iterator[ZookeeperServer]:
    """It listens before anybody else starts: a broker gives up after `zookeeper.connection.timeout.ms`."""
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.close()


class Login(Protocol):
    """Somebody who may log in."""

    @property
    def user(self) -> str: ...
    @property
    def password(self) -> str: ...


def write_server_login(path: Path, *logins: Login) -> None:
    """The JAAS file of a server: whom it lets in by SASL."""
    users = "".join(f" user_{login.user}={_quoted(login.password)}" for login in logins)
    _write_jaas(path, "Server", users)


def write_client_login(path: Path, login: Login) -> None:
    """The JAAS file of who logs in."""
    _write_jaas(path, "Client", f" username={_quoted(login.user)} password={_quoted(login.password)}")


def _write_jaas(path: Path, section: str, options: str) -> None:
    module = "org.apache.zookeeper.server.auth.DigestLoginModule"
    path.write_text(f"{section} {{ {module} required{options}; }};\n")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def sasl_flags(login_file: Path, *, required: bool) -> list[str]:
    """With which a server lets clients log in, or lets none in that does not."""
    flags = [
        f"-Djava.security.auth.login.config={login_file}",
        "-Dzookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "-Dzookeeper.requireClientAuthScheme=sasl",
    ]
    # What is documented under the name before does nothing; this does (ZOOKEEPER-1634).
    return [*flags, "-Dzookeeper.sessionRequireClientSASLAuth=true"] if required else flags
