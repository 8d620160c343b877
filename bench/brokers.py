"""The two brokers, each a process of its own on a free port of loopback, with an empty data directory.

Both run with their defaults; what is set is only what a lone broker needs, and an empty group's first rebalance does
not wait. Apache Kafka runs as its start script (kafka-server-start.sh) would run it: its heap, its JVM flags, its log
and its garbage collection log. The script itself, which is a shell and a `java -version`, is not run and not counted,
nor is the formatting of its data directory, which is done once and copied.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bench.link import Link, answers, free_ports
from bench.proc import Memory, cpu_seconds, descriptors, forget_peak, memory, peak_rss_mb
from bench.programs import JVM_PERFORMANCE_FLAGS, Java, WorkFailedError, installed_kpy, run

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 600.0
"""Apache Kafka with ten thousand partitions takes more than three minutes on a busy machine."""
START_POLL_INTERVAL_S = 0.002
DELETE_TIMEOUT_S = 30.0
LOG_TAIL_BYTES = 3000

Settings = Mapping[str, str]

SETTINGS: Settings = {
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
}

HEAP_FLAGS = ("-Xmx1G", "-Xms1G")
JMX_FLAGS = (
    "-Dcom.sun.management.jmxremote=true",
    "-Dcom.sun.management.jmxremote.authenticate=false",
    "-Dcom.sun.management.jmxremote.ssl=false",
)
BROKER_LOG4J = """\
log4j.rootLogger=INFO, file
log4j.appender.file=org.apache.log4j.DailyRollingFileAppender
log4j.appender.file.DatePattern='.'yyyy-MM-dd-HH
log4j.appender.file.File=${kafka.logs.dir}/server.log
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=[%d] %p %m (%c)%n
"""
CLUSTER_ID = "YmVuY2gtb2Yta3B5LTAwMQ"


class Kind(NamedTuple):
    """How one kind of broker is started. `prepare` is called once, before the first start; both get all settings."""

    name: str
    prepare: Callable[[Path, Sequence[int], Settings], None]
    command: Callable[[Path, Sequence[int], Settings], list[str]]
    environment: Mapping[str, str] = MappingProxyType({})
    """Beside that of the benchmark."""


class BrokerProcess:
    """One broker; it may be stopped, killed and started again on the same data. `settings` are beside SETTINGS."""

    def __init__(self, kind: Kind, home: Path, settings: Settings | None = None) -> None:
        self.kind = kind
        self.name = kind.name
        self._home = home
        self._settings = {**SETTINGS, **(settings or {})}
        self._ports = free_ports(2)
        self.port = self._ports[0]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.data_dir = home / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.data_dir.mkdir(parents=True)
        kind.prepare(home, self._ports, self._settings)

    def start(self) -> float:
        """Starts the process. Returns the seconds until it answered its first request. Raises WorkFailedError."""
        command = self.kind.command(self._home, self._ports, self._settings)
        with self._log_path.open("ab") as log:
            started = time.monotonic()
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.kind.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._process = process
        while not answers(self.port):
            if process.poll() is not None:
                self._process = None
                raise WorkFailedError(f"{self.name} exited with {process.returncode} at its start:\n{self._log_tail()}")
            if time.monotonic() > started + START_TIMEOUT_S:
                raise WorkFailedError(f"{self.name} did not answer within {START_TIMEOUT_S:.0f} s:\n{self._log_tail()}")
            time.sleep(START_POLL_INTERVAL_S)
        return time.monotonic() - started

    def stop(self) -> None:
        """SIGTERM, and the end of the process. Raises WorkFailedError when it does not end."""
        self.send(signal.SIGTERM)
        self.wait()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def send(self, how: signal.Signals) -> None:
        self._running().send_signal(how)

    def wait(self) -> None:
        """Returns at the end of the process. Raises WorkFailedError, and kills it, when it does not end."""
        process = self._running()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
            raise WorkFailedError(
                f"{self.name} did not stop within {STOP_TIMEOUT_S:.0f} s:\n{self._log_tail()}"
            ) from None
        finally:
            self._process = None

    def discard(self) -> None:
        """Ends the process, however it is, and deletes all it wrote."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._home)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def cpu_percent(self, seconds: float) -> float:
        """Of one core, in the next `seconds`."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return 100 * (self.cpu_seconds() - before) / seconds

    def memory(self) -> Memory:
        return memory(self.pid)

    def forget_peak(self) -> None:
        forget_peak(self.pid)

    def peak_rss_mb(self) -> float:
        return peak_rss_mb(self.pid)

    def descriptors(self) -> int:
        return descriptors(self.pid)

    def delete_topic(self, name: str) -> None:
        """Deletes a topic and gives its records' disk space back at once.

        Both brokers first rename the directories of a deleted topic and remove them after file.delete.delay.ms, a
        minute. By then gigabytes would lie in the page cache, and writing slows down with them; so their logs are cut.
        """
        with Link(self.port) as link:
            link.delete_topic(name)
        self.cut_deleted_logs(name)

    def cut_deleted_logs(self, name: str) -> None:
        """Gives back the space of a topic whose deletion has been asked for, as soon as its directories are renamed."""
        deadline = time.monotonic() + DELETE_TIMEOUT_S
        while any(self.data_dir.glob(f"{name}-*[0-9]")):
            if time.monotonic() > deadline:
                raise WorkFailedError(f"{self.name} keeps the directory of the deleted topic {name}")
            time.sleep(START_POLL_INTERVAL_S)
        for log in self.data_dir.glob(f"{name}-*/*.log*"):
            with log.open("r+b") as file:
                file.truncate(0)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def has_ended(self) -> bool:
        """Whether a process that was sent a signal is gone."""
        return self._running().poll() is not None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def _log_path(self) -> Path:
        return self._home / "broker.out"

    def _log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-LOG_TAIL_BYTES:]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkFailedError(f"{self.name} does not run")
        return self._process


def kpy() -> Kind:
    """kpy as installing it gives it, by the Python that runs the benchmark."""
    return _kpy((sys.executable, "-m", "kpy"), {"PYTHONPATH": installed_kpy(), "PYTHONSAFEPATH": "1"})


def kpy_of_checkout(python: Sequence[str]) -> Kind:
    """kpy as it lies here; `python` is the command that runs it, up to its own arguments."""
    return _kpy(python, {})


def _kpy(python: Sequence[str], environment: Mapping[str, str]) -> Kind:

    def command(home: Path, ports: Sequence[int], all_settings: Settings) -> list[str]:
        settings = [argument for name, value in all_settings.items() for argument in ("--set", f"{name}={value}")]
        address = ["--listen", f"127.0.0.1:{ports[0]}", "--data-dir", str(home / "data")]
        return [*python, "start", *address, "--quiet", *settings]

    return Kind("kpy", lambda home, ports, settings: None, command, environment)


def kafka(java: Java, formatted: Path) -> Kind:
    """Apache Kafka in KRaft mode, broker and controller in one process. `formatted` keeps a formatted directory."""
    return Kind("kafka", partial(_prepare_kafka, java, formatted), partial(_kafka_command, java))


def kafka_on_zookeeper(java: Java) -> Kind:
    """Apache Kafka in ZooKeeper mode; `broker.id` and `zookeeper.connect` are among the settings."""
    return Kind("kafka", _prepare_kafka_on_zookeeper, partial(_kafka_command, java))


def _prepare_kafka_on_zookeeper(home: Path, ports: Sequence[int], settings: Settings) -> None:
    listeners = {"listeners": f"PLAINTEXT://127.0.0.1:{ports[0]}", "log.dirs": str(home / "data")}
    _write_configuration(home, {**listeners, **settings})


def _prepare_kafka(java: Java, formatted: Path, home: Path, ports: Sequence[int], settings: Settings) -> None:
    port, controller_port = ports
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(home / "data"),
        **settings,
    }
    _write_configuration(home, properties)
    if formatted.exists():
        shutil.copytree(formatted, home / "data", dirs_exist_ok=True)
        return
    config = str(home / "server.properties")
    run(java.command((), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", config))
    shutil.copytree(home / "data", formatted)


def _write_configuration(home: Path, properties: Settings) -> None:
    (home / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    (home / "log4j.properties").write_text(BROKER_LOG4J)


def _kafka_command(java: Java, home: Path, _ports: Sequence[int], _settings: Settings) -> list[str]:
    logs = [
        f"-Xlog:gc*:file={home}/kafkaServer-gc.log:time,tags:filecount=10,filesize=100M",
        *JMX_FLAGS,
        f"-Dkafka.logs.dir={home}",
        f"-Dlog4j.configuration=file:{home}/log4j.properties",
    ]
    flags = [*HEAP_FLAGS, *JVM_PERFORMANCE_FLAGS, *logs]
    return java.command(flags, "kafka.Kafka", str(home / "server.properties"))
