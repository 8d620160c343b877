"""A cluster of Apache Kafka 3.9.1 brokers, kpy brokers or both on one ZooKeeper; the first to start is controller."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import Backend, BrokerProcess, controller_id, partitions_of, wait_until
from compat.zookeeper.zookeeper_server import ZookeeperServer, listening
from kpy.records.batch import iter_batches

IN_SYNC_TIMEOUT_S = 60.0
SETTINGS: Mapping[str, str] = {
    "inter.broker.protocol.version": "3.9",
    "controlled.shutdown.max.retries": "1",
    "zookeeper.session.timeout.ms": "6000",
    "replica.lag.time.max.ms": "4000",
    "replica.fetch.wait.max.ms": "100",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.num.partitions": "3",
    "transaction.state.log.min.isr": "2",
    "min.insync.replicas": "2",
    "auto.create.topics.enable": "false",
    "auto.leader.rebalance.enable": "false",
}


class StoredBatch(NamedTuple):
    """What must be the same in all replicas of a batch."""

    base_offset: int
    last_offset: int
    leader_epoch: int
    crc: int


class Cluster:
    """Brokers by id. Each has its data in a directory of its own, and lives on one port."""

    def __init__(self, work_dir: Path, zookeeper: str) -> None:
        self._work_dir = work_dir
        self._zookeeper = zookeeper
        self.brokers: dict[int, BrokerProcess] = {}

    def start(
        self, broker_id: int, backend: Backend | None = None, changed: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Starts a broker, as the kind that it was before or is to be from now on, with these settings changed."""
        if backend is not None:
            self._add(broker_id, backend, changed)
        self.brokers[broker_id].start()

    def start_all(self, kinds: Mapping[int, Backend]) -> None:
        """Starts new brokers: the first, which becomes the controller, and then the others at the same time."""
        for broker_id, backend in kinds.items():
            self._add(broker_id, backend)
        first, *others = kinds
        self.start(first)
        with ThreadPoolExecutor() as threads:
            list(threads.map(self.start, others))

    def _add(self, broker_id: int, backend: Backend, changed: Mapping[str, str] = MappingProxyType({})) -> None:
        settings = {**SETTINGS, "broker.id": str(broker_id), "zookeeper.connect": self._zookeeper, **changed}
        self.brokers[broker_id] = BrokerProcess(self._work_dir / f"broker-{broker_id}", settings, backend)

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def create_topic(self, topic: str, assignment: list[list[int]], **configs: str) -> None:
        """Partition i has the replicas `assignment[i]`, the first of which leads."""
        wait_until(lambda: len({controller_id(each.port) for each in self.brokers.values()}) == 1, "one controller")
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        settings = {name.replace("_", "."): value for name, value in configs.items()}
        admin.create_topics([NewTopic(topic, len(assignment), replica_assignment=assignment, config=settings)])[
            topic
        ].result(30)

    def isrs(self, topic: str, asking: int) -> dict[int, set[int]]:
        """The ISR of each partition, as one broker knows it."""
        found = partitions_of(self.brokers[asking].port, topic)
        return {partition.partition_index: set(partition.isr_nodes) for partition in found}

    def leaders(self, topic: str, asking: int) -> dict[int, int]:
        """The leader of each partition, as one broker knows it."""
        return {each.partition_index: each.leader_id for each in partitions_of(self.brokers[asking].port, topic)}

    def wait_for_isrs(self, topic: str, assignment: list[list[int]], asking: int) -> None:
        """Until all replicas of each partition are in sync."""
        wanted = {index: set(replicas) for index, replicas in enumerate(assignment)}
        wait_until(lambda: self.isrs(topic, asking) == wanted, f"{topic} is whole", IN_SYNC_TIMEOUT_S)

    def wait_for_isr(self, topic: str, partitions: int, isr: set[int], asking: int) -> None:
        """Until each partition of the topic has this ISR."""
        wanted = dict.fromkeys(range(partitions), isr)
        wait_until(lambda: self.isrs(topic, asking) == wanted, f"{topic} has the ISR {sorted(isr)}", IN_SYNC_TIMEOUT_S)

    def stored(self, broker_id: int, topic: str, partition: int) -> list[StoredBatch]:
        """The batches in a broker's log files, those that are only in the page cache included."""
        directory = self.brokers[broker_id].data_dir / f"{topic}-{partition}"
        return [
            StoredBatch(header.base_offset, header.last_offset, header.partition_leader_epoch, header.crc)
            for path in sorted(directory.glob("*.log"))
            for header, _ in iter_batches(path.read_bytes())
        ]

    def wait_until_equal(self, topic: str, partition: int, replicas: Sequence[int]) -> list[StoredBatch]:
        """Until these brokers have the same batches in this partition; these."""

        def are_equal() -> bool:
            first, *others = [self.stored(broker_id, topic, partition) for broker_id in replicas]
            return all(other == first for other in others)

        wait_until(are_equal, f"all replicas of {topic}-{partition} are the same", IN_SYNC_TIMEOUT_S)
        return self.stored(replicas[0], topic, partition)

    def close(self) -> None:
        for broker in self.brokers.values():
            broker.close()


@contextmanager
def cluster_in(work_dir: Path) -> Iterator[Cluster]:
    """A ZooKeeper, and brokers as they are started; all are killed at the end."""
    with listening(ZookeeperServer(work_dir)) as zookeeper:
        cluster = Cluster(work_dir, zookeeper.address)
        try:
            yield cluster
        finally:
            for broker in cluster.brokers.values():
                if broker.is_running:
                    broker.kill()
