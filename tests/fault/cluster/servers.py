"""A ZooKeeper and three brokers, of kpy or of Apache Kafka, each a process on a host of its own.

All are children of the run and die with it, whatever becomes of it. A broker's wall clock may be moved by a file; its
monotonic clock goes on, as it does on a machine whose time is set. Apache Kafka's is moved by libfaketime, kpy's by
kpy_with_clock.py.
"""

import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from compat.java.kafka_tools import java
from compat.replication.cluster import StoredBatch
from kpy.records.batch import iter_batches
from kpy.wire import metadata
from tests.fault.cluster.network import Network

KAFKA_VERSION = "3.9.1"
PORT = 9092
ZOOKEEPER_PORT = 2181
ZOOKEEPER_TICK_MS = 2_000
SESSION_TIMEOUT_S = 6
STOP_TIMEOUT_S = 10.0
RESTART_PAUSE_S = 1.0
BROKERS = ("broker1", "broker2", "broker3")
ZOOKEEPER = "zookeeper"
CLIENTS = "clients"
HOSTS = (*BROKERS, ZOOKEEPER, CLIENTS)

# What lets a cluster notice and mend within seconds what it would by default take half a minute for.
SETTINGS: Mapping[str, str] = {
    "inter.broker.protocol.version": "3.9",
    "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_S * 1000),
    "zookeeper.connection.timeout.ms": "60000",
    "replica.lag.time.max.ms": "4000",
    "replica.socket.timeout.ms": "5000",
    "replica.fetch.wait.max.ms": "200",
    "controller.socket.timeout.ms": "5000",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.state.log.min.isr": "2",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "min.insync.replicas": "2",
    "default.replication.factor": "3",
    "unclean.leader.election.enable": "false",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
}


class Server:
    """A process on a host, which may be killed, paused and started again."""

    def __init__(self, network: Network, host: str, command: Sequence[str], log: Path) -> None:
        self.host = host
        self.log = log
        # Whoever has killed it will start it again; a server that ends by itself nobody expects to.
        self.is_wanted = False
        # The signal reaches the process even if the run itself is killed.
        self._command = ["setpriv", "--pdeathsig", "KILL", *network.command(host, command)]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself, and not in this moment."""
        return self.is_wanted and not self.is_running and time.monotonic() - self._started > RESTART_PAUSE_S

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it unless it runs; returns before it is ready."""
        self.is_wanted = True
        if not self.is_running:
            self._remove_shared_memory()
            self._started = time.monotonic()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )

    def kill(self) -> None:
        self.is_wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._remove_shared_memory()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _remove_shared_memory(self) -> None:
        """What libfaketime leaves of a process that was killed."""
        if self._process is not None:
            for name in (f"faketime_shm_{self._process.pid}", f"sem.faketime_sem_{self._process.pid}"):
                Path("/dev/shm", name).unlink(missing_ok=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)


class Partition(NamedTuple):
    """What a broker says of a partition."""

    topic: str
    partition: int
    leader: int
    replicas: frozenset[int]
    isr: frozenset[int]


class Cluster:
    """The servers by host, and what the brokers say of themselves. It is asked from the host of the clients."""

    def __init__(
        self, network: Network, kind: str, work_dir: Path, settings: Mapping[str, str], with_clocks: bool
    ) -> None:
        self.network = network
        self._work_dir = work_dir
        self.bootstrap = ",".join(f"{network.address(host)}:{PORT}" for host in BROKERS)
        self._clocks = {host: work_dir / f"{host}.clock" for host in BROKERS}
        zookeeper = zookeeper_command(work_dir / ZOOKEEPER)
        self.servers = {ZOOKEEPER: Server(network, ZOOKEEPER, zookeeper, work_dir / "zookeeper.log")}
        for host in BROKERS:
            self.set_clock(host, 0)
            configuration = {
                **SETTINGS,
                "broker.id": str(broker_id(host)),
                "zookeeper.connect": f"{network.address(ZOOKEEPER)}:{ZOOKEEPER_PORT}",
                **settings,
            }
            clock = self._clocks[host] if with_clocks else None
            command = BROKER_COMMANDS[kind](network.address(host), work_dir / host, configuration, clock)
            self.servers[host] = Server(network, host, command, work_dir / f"{host}.log")

    def set_clock(self, host: str, offset_s: int) -> None:
        """Move a broker's wall clock away from the time by so much; it looks once a second."""
        new = self._clocks[host].with_suffix(".new")
        new.write_text(f"{offset_s:+d}s\n")
        new.replace(self._clocks[host])

    def partitions(self, host: str) -> list[Partition] | None:
        """All partitions as this broker knows them; None where it does not answer or misses a broker."""
        said = ask_metadata(self.network.address(host))
        if said is None or len(said.brokers) != len(BROKERS) or said.controller_id < 0:
            return None
        return [
            Partition(
                str(topic.name),
                partition.partition_index,
                partition.leader_id,
                frozenset(partition.replica_nodes),
                frozenset(partition.isr_nodes),
            )
            for topic in said.topics
            for partition in topic.partitions
        ]

    def controller(self) -> str | None:
        """The broker that most name as the controller; None if none answers."""
        answers = [said for host in BROKERS if (said := ask_metadata(self.network.address(host), 0.5)) is not None]
        named = [said.controller_id for said in answers if said.controller_id > 0]
        return f"broker{max(named, key=named.count)}" if named else None

    def is_whole(self) -> bool:
        """Whether all brokers know all brokers, and all replicas of all partitions in sync."""
        views = [self.partitions(host) for host in BROKERS]
        return all(
            view is not None and all(each.isr == each.replicas and each.leader >= 0 for each in view) for view in views
        )

    def wait_until_whole(self, timeout_s: float) -> None:
        """TimeoutError with what is missing where it takes longer."""
        deadline = time.monotonic() + timeout_s
        while not self.is_whole():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not whole within {timeout_s} s: {self.missing()}")
            time.sleep(0.1)

    def missing(self) -> str:
        """What keeps the cluster from being whole."""
        told: list[str] = []
        for host in BROKERS:
            view = self.partitions(host)
            if view is None:
                told.append(f"{host} does not know all brokers and the controller")
            told += [f"{host} says {each}" for each in view or () if each.isr != each.replicas or each.leader < 0]
        return "; ".join(told)

    def differences(self, topic: str) -> list[str]:
        """The partitions of topics of this name whose replicas do not hold the same batches."""
        names = {path.name for host in BROKERS for path in (self._work_dir / host).glob(f"{topic}-*")}
        return sorted(name for name in names if len({self._stored(host, name) for host in BROKERS}) > 1)

    def _stored(self, host: str, partition: str) -> tuple[StoredBatch, ...]:
        """The batches in a broker's log files, those that are only in the page cache included."""
        return tuple(
            StoredBatch(header.base_offset, header.last_offset, header.partition_leader_epoch, header.crc)
            for path in sorted((self._work_dir / host / partition).glob("*.log"))
            for header, _ in iter_batches(path.read_bytes())
        )

    def close(self) -> None:
        for server in self.servers.values():
            server.kill()


def broker_id(host: str) -> int:
    return BROKERS.index(host) + 1


def ask_metadata(address: str, timeout_s: float = 2.0) -> metadata.MetadataResponse | None:
    """What a broker answers to Metadata v1 for all topics; None where it does not."""
    request = struct.pack(">hhihi", 3, 1, 1, 0, -1)
    try:
        with socket.create_connection((address, PORT), timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                size = stream.read(4)
                answer = stream.read(struct.unpack(">i", size)[0]) if len(size) == 4 else b""
    except OSError:
        return None
    return metadata.decode_response(memoryview(answer), 1, 4) if answer else None


def zookeeper_command(data_dir: Path) -> list[str]:
    return java(
        KAFKA_VERSION,
        "-Dzookeeper.admin.enableServer=false",
        "-Dzookeeper.forceSync=no",
        "org.apache.zookeeper.server.ZooKeeperServerMain",
        str(ZOOKEEPER_PORT),
        str(data_dir),
        str(ZOOKEEPER_TICK_MS),
    )


def kafka_command(address: str, data_dir: Path, settings: Mapping[str, str], clock: Path | None) -> list[str]:
    properties = {"listeners": f"PLAINTEXT://{address}:{PORT}", "log.dirs": str(data_dir), **settings}
    path = data_dir.with_suffix(".properties")
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return [*(faketime_command(clock) if clock else []), *java(KAFKA_VERSION, "kafka.Kafka", str(path))]


def kpy_command(address: str, data_dir: Path, settings: Mapping[str, str], clock: Path | None) -> list[str]:
    module = ["tests.fault.cluster.kpy_with_clock", str(clock)] if clock else ["kpy"]
    start = ["start", "--listen", f"{address}:{PORT}", "--data-dir", str(data_dir)]
    for name, value in settings.items():
        start += ["--set", f"{name}={value}"]
    return [sys.executable, "-m", *module, *start]


# How a broker is started at an address, with its data and its settings, and with a clock where one is to be moved.
BROKER_COMMANDS: Mapping[str, Callable[[str, Path, Mapping[str, str], Path | None], list[str]]] = {
    "kafka": kafka_command,
    "kpy": kpy_command,
}


def find_faketime() -> Path | None:
    """libfaketime for programs with threads, where Debian's package puts it."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def faketime_command(clock: Path) -> list[str]:
    """What to put in front of a command. Only that one may load the library, which stumbles over what another program
    has left in the same process.
    """
    library = find_faketime()
    assert library is not None, "libfaketime is not installed: run compat/toolchains.sh"
    return [
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        # Without it each wait of a JVM for a condition is over at once.
        "FAKETIME_FORCE_MONOTONIC_FIX=0",
    ]
