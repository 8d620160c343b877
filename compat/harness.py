"""Runs a broker as a process of its own, for tests that drive it with real clients.

The broker under test is kpy. With KPY_COMPAT_AGAINST=kafka it is Apache Kafka in KRaft mode instead, from the jars in
KPY_KAFKA_CLASSPATH (a Java class path, such as `/opt/kafka/libs/*`): a test that fails there expects what Kafka never
promised.

Both kinds start the same way: a free port, an empty data directory, settings by Apache Kafka's own names. Readiness is
seen on the wire: a broker is started when it answers ApiVersions, and in ZooKeeper mode when it knows its controller.
"""

import errno
import fcntl
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from kpy.wire import metadata

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.02
LOG_TAIL_LINES = 80

LOCKS = Path(__file__).resolve().parent.parent / "build" / "locks"

# Below the ports that Linux and others give to connections: from 32768 on.
FIRST_PORT = 12_000
PORTS_IN_RANGE = 2_500
PORT_RANGES = 8

# What a test broker changes: groups form at once instead of after 3 s, and internal topics fit one broker.
DEFAULT_SETTINGS: Mapping[str, str] = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.num.partitions": "5",
    "transaction.state.log.min.isr": "1",
}


def answers(port: int) -> bool:
    """Whether ApiVersions v0 is answered without an error."""
    answer = _ask(port, struct.pack(">hhih", 18, 0, 1, 0))
    return len(answer) >= 6 and struct.unpack(">ih", answer[:6]) == (1, 0)


def controller_id(port: int) -> int:
    """The controller that this broker names; -1 where there is none, or no answer."""
    known = _metadata(port, [])
    return known.controller_id if known is not None else -1


def partitions_of(port: int, topic: str) -> list[metadata.MetadataResponsePartition]:
    """The partitions of a topic as this very broker knows them; none where there is no such topic, or no answer.

    A client is no help in this: librdkafka asks any broker of the cluster that it is connected to.
    """
    known = _metadata(port, [topic])
    return known.topics[0].partitions if known is not None else []


def _metadata(port: int, topics: list[str]) -> metadata.MetadataResponse | None:
    version = 4
    wanted = [metadata.MetadataRequestTopic(name=name) for name in topics]
    request = metadata.encode_request(metadata.MetadataRequest(topics=wanted, allow_auto_topic_creation=False), version)
    answer = _ask(port, struct.pack(">hhih", metadata.API_KEY, version, 1, 0) + b"".join(request))
    return metadata.decode_response(memoryview(answer), version, 4) if answer else None


def _ask(port: int, request: bytes) -> bytes:
    """The answer without its size; empty where there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            stream = connection.makefile("rb")
            size = stream.read(4)
            return stream.read(struct.unpack(">i", size)[0]) if len(size) == 4 else b""
    except OSError:
        return b""


class Backend(NamedTuple):
    """One kind of broker: how its process is started, which exit codes a SIGTERM may end in, whether the one on a port
    may be used.
    """

    command: Callable[[int, Path, Mapping[str, str]], list[str]]
    clean_exit_codes: frozenset[int]
    is_ready: Callable[[int], bool] = answers


def _kpy_command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    command = [sys.executable, "-m", "kpy", "start", "--listen", f"127.0.0.1:{port}"]
    if "log.dirs" not in settings:
        command += ["--data-dir", str(data_dir)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command


def _kafka_command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    """Write what `kafka-storage format` would have written, which saves a second start of a JVM."""
    conf_dir = data_dir.with_name(data_dir.name + "-conf")
    conf_dir.mkdir(exist_ok=True)
    controller_port_file = conf_dir / "controller-port"
    if not controller_port_file.exists():
        controller_port_file.write_text(str(free_port()))
    controller_port = controller_port_file.read_text()
    meta_properties = data_dir / "meta.properties"
    if not meta_properties.exists():
        meta_properties.write_text(
            "version=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\ndirectory.id=Y29tcGF0LXRlc3RzLWRpcg\n"
        )
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(data_dir),
        # A killed broker may register again only when its old session is over.
        "broker.session.timeout.ms": "1000",
        "broker.heartbeat.interval.ms": "200",
        **settings,
    }
    (conf_dir / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    (conf_dir / "log4j.properties").write_text(
        "log4j.rootLogger=WARN, stdout\nlog4j.appender.stdout=org.apache.log4j.ConsoleAppender\n"
        "log4j.appender.stdout.layout=org.apache.log4j.PatternLayout\n"
        "log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n\n"
    )
    return [
        require_tool("java"),
        "-Xms256m",
        "-Xmx512m",
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j.configuration=file:{conf_dir / 'log4j.properties'}",
        "-cp",
        os.environ["KPY_KAFKA_CLASSPATH"],
        "kafka.Kafka",
        str(conf_dir / "server.properties"),
    ]


BACKENDS: Mapping[str, Backend] = {
    "kpy": Backend(_kpy_command, frozenset({0})),
    "kafka": Backend(_kafka_command, frozenset({0, 128 + signal.SIGTERM})),
}


def against() -> str:
    """The broker under test: `kpy` or `kafka`."""
    return os.environ.get("KPY_COMPAT_AGAINST", "kpy")


def _ports() -> Iterator[int]:
    """The ports of this process of pytest, in turn; where they begin is by chance."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + worker % PORT_RANGES * PORTS_IN_RANGE
    start = uuid.uuid4().int % PORTS_IN_RANGE
    for number in itertools.count(start):
        yield first + number % PORTS_IN_RANGE


PORTS = _ports()


def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago, and that no connection is given for its own end.

    So it stays free while its broker is down. Tests that run side by side have ports of their own.
    """
    for port in itertools.islice(PORTS, PORTS_IN_RANGE):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise AssertionError(f"all of {PORTS_IN_RANGE} ports are taken")


@contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Tests that run side by side do this one after the other, such as filling a cache that all of them share."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / what).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unique(prefix: str) -> str:
    """A topic, group or client name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Poll `condition` until it is true; AssertionError with `what` when it is not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_INTERVAL_S)


def require_tool(name: str) -> str:
    """The path of a command; without it the test is skipped, or fails where CI=true promises a complete machine."""
    path = shutil.which(name)
    if path is None:
        unavailable(f"{name} is not installed: run compat/toolchains.sh")
    return path


def require_module(name: str) -> None:
    """The same for a Python module that a client needs for a codec and that is not installed with it."""
    if importlib.util.find_spec(name) is None:
        unavailable(f"the Python module {name} is not installed")


def require_root(purpose: str) -> None:
    """The same for what only root may do."""
    if os.geteuid() != 0:
        unavailable(f"{purpose} needs root")


def unavailable(reason: str) -> NoReturn:
    """Skips the test, or fails it where CI=true promises a complete machine."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class BrokerProcess:
    """One broker on one port and one data directory; it may be stopped, killed and started again.

    `work_dir` holds the data directory, the log, and what the broker needs beside them. `settings` are added to
    DEFAULT_SETTINGS and are read at each start, so that a test may change them between two. `backend` is the kind of
    broker; without one it is the one that all of compat/ runs against.
    """

    def __init__(
        self, work_dir: Path, settings: Mapping[str, str] | None = None, backend: Backend | None = None
    ) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.data_dir = work_dir / "data"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, str] = {**DEFAULT_SETTINGS, **(settings or {})}
        self._log_path = work_dir / "broker.log"
        self._backend = backend or BACKENDS[against()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self._process is not None

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Start the process and return once it answers requests."""
        assert self._process is None, "the broker runs already"
        command = self._backend.command(self.port, self.data_dir, self.settings)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._backend.is_ready(self.port):
            exit_code = self._process.poll()
            if exit_code is not None:
                self._process = None
                raise AssertionError(f"the broker exited with code {exit_code} at start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the broker did not answer within {START_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(POLL_INTERVAL_S)

    def stop(self) -> None:
        """SIGTERM; AssertionError when the broker hangs or exits with an error."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            exit_code = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no exit within {STOP_TIMEOUT_S} s of SIGTERM:\n{self.log_tail()}") from None
        self._process = None
        if exit_code not in self._backend.clean_exit_codes:
            raise AssertionError(f"the broker exited with code {exit_code} on SIGTERM:\n{self.log_tail()}")

    def kill(self) -> None:
        """SIGKILL: the broker gets no chance to write anything more."""
        process = self._running()
        process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._process = None

    def restart(self) -> None:
        """A clean stop and a start on the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the broker if it runs; a test that has killed it need not start it again."""
        if self._process is not None:
            self.stop()

    def log_text(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def log_tail(self) -> str:
        return "\n".join(self.log_text().splitlines()[-LOG_TAIL_LINES:])

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the broker does not run"
        return self._process


@contextmanager
def running_broker(work_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[BrokerProcess]:
    """A started broker that is stopped cleanly at the end."""
    broker = BrokerProcess(work_dir, settings)
    broker.start()
    try:
        yield broker
    finally:
        broker.close()


class BrokerFactory:
    """Starts brokers for one test, each with settings of its own: `fresh_broker({"log.retention.ms": "1000"})`."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self.brokers: list[BrokerProcess] = []

    def __call__(self, settings: Mapping[str, str] | None = None) -> BrokerProcess:
        broker = BrokerProcess(self._work_dir / f"broker-{len(self.brokers)}", settings)
        self.brokers.append(broker)
        broker.start()
        return broker

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()


@contextmanager
def running(broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """A started broker, killed at the end unless the test has ended it."""
    broker.start()
    try:
        yield broker
    finally:
        if broker.is_running:
            broker.kill()
