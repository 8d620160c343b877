"""Three brokers of one kind and a ZooKeeper of their own, as one thing that is measured.

ZooKeeper is the one that Apache Kafka 3.9.1 brings, started with the heap and the flags of its start script, and syncs
its log as it does by default. A session lasts 6 s; ZooKeeper looks for those that are over at each tick of 500 ms.
"""

import contextlib
import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.brokers import BrokerProcess, Kind
from bench.link import Link, free_ports
from bench.programs import JVM_PERFORMANCE_FLAGS, Java, WorkFailedError
from kpy.wire import create_topics, metadata

SIZE = 3
SESSION_TIMEOUT_MS = 6_000
TICK_MS = 500
SETTINGS: Mapping[str, str] = {
    "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": str(SIZE),
    "transaction.state.log.replication.factor": str(SIZE),
    "transaction.state.log.min.isr": "2",
}
ZOOKEEPER_HEAP_FLAGS = ("-Xmx512M", "-Xms512M")
ZOOKEEPER_START_TIMEOUT_S = 60.0
WORK_LIMIT_S = 480.0
"""For one work, with all that it waits for; 4,000 partitions are created and in sync again twice in a third of it."""
POLL_INTERVAL_S = 0.01
METADATA_VERSION = 12
UNREACHABLE = (ConnectionError, TimeoutError, WorkFailedError)
"""What a Link raises when its broker is not there, or not any more."""


def wait_until(condition: Callable[[], bool], what: str, deadline: float) -> None:
    """A broker that does not answer is asked again. Raises WorkFailedError at the deadline, by time.monotonic."""
    while True:
        with contextlib.suppress(*UNREACHABLE):
            if condition():
                return
        if time.monotonic() > deadline:
            raise WorkFailedError(f"not in time: {what}")
        time.sleep(POLL_INTERVAL_S)


class Zookeeper:
    """One server, from `start` until `discard`."""

    def __init__(self, java: Java, home: Path) -> None:
        home.mkdir(parents=True)
        (self._port,) = free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        flags = (*ZOOKEEPER_HEAP_FLAGS, *JVM_PERFORMANCE_FLAGS, "-Dzookeeper.admin.enableServer=false")
        arguments = (str(self._port), str(home / "data"), str(TICK_MS))
        self._command = java.command(flags, "org.apache.zookeeper.server.ZooKeeperServerMain", *arguments)
        self._log_path = home / "zookeeper.out"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log_path.open("ab") as log:
            command = self._command
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        wait_until(self._listens, "ZooKeeper listens", time.monotonic() + ZOOKEEPER_START_TIMEOUT_S)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        except OSError:
            return False
        return True


class Cluster:
    """Brokers by id; some of them may be stopped meanwhile."""

    def __init__(self, kind: Kind, java: Java, home: Path) -> None:
        self.name = kind.name
        self._home = home
        self._zookeeper = Zookeeper(java, home / "zookeeper")
        self._topic_numbers = itertools.count()
        self._deadline = 0.0
        self.brokers: dict[int, BrokerProcess] = {}
        for broker_id in range(1, SIZE + 1):
            own = {"broker.id": str(broker_id), "zookeeper.connect": self._zookeeper.address}
            self.brokers[broker_id] = BrokerProcess(kind, home / f"broker-{broker_id}", {**SETTINGS, **own})

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    @property
    def ports(self) -> dict[int, int]:
        return {broker_id: broker.port for broker_id, broker in self.brokers.items()}

    def start(self) -> None:
        self._zookeeper.start()
        self.begin()

    def begin(self) -> None:
        """Makes the cluster complete, whatever the last work has left, and gives the next one its time."""
        self._deadline = time.monotonic() + WORK_LIMIT_S
        self.start_missing()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Raises WorkFailedError when the work's time is over."""
        wait_until(condition, what, self._deadline)

    def start_missing(self) -> None:
        """Returns when all brokers live and know of each other and of the controller."""
        for broker in self.brokers.values():
            if broker.is_running and broker.has_ended:
                broker.wait()
            if not broker.is_running:
                broker.start()
        self.wait_until(self._is_complete, "all brokers know each other")

    def discard(self) -> None:
        """Ends all processes and deletes all they wrote."""
        for broker in self.brokers.values():
            broker.discard()
        self._zookeeper.end()
        shutil.rmtree(self._home)

    def cpu_seconds(self) -> float:
        return sum(broker.cpu_seconds() for broker in self.brokers.values())

    def others(self, broker_id: int) -> list[int]:
        return [each for each in self.brokers if each != broker_id]

    def controller_id(self, asked: int) -> int:
        """As one broker says; -1 where it knows none."""
        return self.described(asked, []).controller_id

    def described(self, asked: int, topics: Iterable[str]) -> metadata.MetadataResponse:
        """What one broker answers to Metadata. Raises one of UNREACHABLE."""
        return described(self.brokers[asked].port, topics)

    def _is_complete(self) -> bool:
        for broker_id in self.brokers:
            answer = self.described(broker_id, [])
            if len(answer.brokers) < SIZE or answer.controller_id not in self.brokers:
                return False
        return True

    # -- topics ------------------------------------------------------------------------------------------------------

    @contextmanager
    def topic(self, partitions: int = 1, first_leader: int = 1) -> Generator[str]:
        """A topic of its own, led by the brokers in turn; its data is gone afterwards."""
        name = f"cluster{next(self._topic_numbers):06}"
        self.create_topic(name, partitions, first_leader)
        try:
            yield name
        finally:
            self._delete_topic(name)

    def create_topic(self, name: str, partitions: int, first_leader: int = 1) -> None:
        """Returns when all replicas are in sync, each broker knows it, and the leaders lead."""
        ids = [first_leader, *self.others(first_leader)]
        replicas = {index: [ids[(index + place) % SIZE] for place in range(SIZE)] for index in range(partitions)}
        assignments = [create_topics.CreatableReplicaAssignment(*each) for each in replicas.items()]
        with self._controller() as link:
            link.ask_for_topic(create_topics.CreatableTopic(name, -1, -1, assignments))
        self.wait_until_whole([name])
        for broker_id in ids:
            led = [index for index, (leader, *_) in replicas.items() if leader == broker_id]
            with Link(self.brokers[broker_id].port) as link:
                what = f"broker {broker_id} leads its partitions of {name}"
                self.wait_until(lambda link=link, led=led: not link.end_offsets_error(name, led), what)

    def wait_until_whole(self, topics: Sequence[str]) -> None:
        """Returns when all replicas of all partitions are in sync, and each broker knows it."""
        for broker_id, topic in itertools.product(self.brokers, topics):
            what = f"broker {broker_id} knows that {topic} is whole"
            self.wait_until(lambda broker_id=broker_id, topic=topic: self._is_whole(broker_id, topic), what)

    def _is_whole(self, asked: int, topic: str) -> bool:
        (found,) = self.described(asked, [topic]).topics
        return bool(found.partitions) and all(len(each.isr_nodes) == SIZE for each in found.partitions)

    def leaders(self, asked: int, topic: str) -> dict[int, int]:
        """By partition, as one broker says; -1 where none leads."""
        (found,) = self.described(asked, [topic]).topics
        return {each.partition_index: -1 if each.error_code else each.leader_id for each in found.partitions}

    def _delete_topic(self, name: str) -> None:
        with self._controller() as link:
            link.delete_topic(name)
        for broker in self.brokers.values():
            broker.cut_deleted_logs(name)

    def _controller(self) -> Link:
        running = next(broker_id for broker_id, broker in self.brokers.items() if broker.is_running)
        return Link(self.brokers[self.controller_id(running)].port)


def described(port: int, topics: Iterable[str]) -> metadata.MetadataResponse:
    """A broker's answer to Metadata, on a connection of its own. Raises one of UNREACHABLE."""
    wanted = [metadata.MetadataRequestTopic(name=name) for name in topics]
    request = metadata.MetadataRequest(wanted, allow_auto_topic_creation=False)
    with Link(port) as link:
        answer: metadata.MetadataResponse = link.call(metadata, request, METADATA_VERSION)
        return answer


@contextmanager
def running_cluster(kind: Kind, java: Java, home: Path) -> Iterator[Cluster]:
    """A whole cluster on empty directories."""
    with contextlib.ExitStack() as stack:
        cluster = Cluster(kind, java, home)
        stack.callback(cluster.discard)
        cluster.start()
        yield cluster
