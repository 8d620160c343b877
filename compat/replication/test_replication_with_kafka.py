"""Two Apache Kafka brokers and one kpy broker are one cluster: each follows the others and is followed by them.

The controller is Apache Kafka's. What is asserted is what users rely on: acknowledged records of acks=all are in the
logs of all replicas, batch for batch the same bytes, and the ISR is whole again after each restart.
"""

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from compat.harness import unique, wait_until
from compat.replication.cluster import MixedCluster, mixed_cluster

ALL = {1, 2, 3}
KPY = 3
RECORDS = 3_000
ASSIGNMENT = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
"""Partition 2 is led by kpy; of the others it is a follower."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedCluster]:
    with mixed_cluster(tmp_path_factory.mktemp("mixed")) as started:
        started.start_kafka(1)
        started.start_kafka(2)
        started.start_kpy(KPY)
        yield started


class Load:
    """Numbered records to all partitions with acks=all, and which of them were acknowledged where."""

    def __init__(self, cluster: MixedCluster, topic: str, **settings: str) -> None:
        self.topic = topic
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.failed: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "acks": "all",
                "enable.idempotence": "true",
                "linger.ms": "1",
                "message.timeout.ms": "90000",
                "topic.metadata.refresh.interval.ms": "1000",
                **settings,
            }
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def send(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self._producer.produce(
                self.topic, b"%d" % number, partition=number % len(ASSIGNMENT), on_delivery=self._delivered
            )
            self._producer.poll(0)

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self.failed.append(str(error))
        else:
            self.acknowledged[message.partition(), message.offset()] = message.value()  # type: ignore[attr-defined]

    def finish(self) -> None:
        assert self._producer.flush(120) == 0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.finish()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            self.send(number, 10)
            number += 10


def read_all(cluster: MixedCluster, topic: str) -> dict[tuple[int, int], bytes]:
    """All records of the topic by (partition, offset)."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": unique("reader"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
            "enable.partition.eof": "true",
        }
    )
    consumer.assign([TopicPartition(topic, index, 0) for index in range(len(ASSIGNMENT))])
    found: dict[tuple[int, int], bytes] = {}
    ended: set[int] = set()
    while len(ended) < len(ASSIGNMENT):
        message = consumer.poll(30)
        assert message is not None, "nothing to read for 30 s"
        if message.error() is not None:
            ended.add(message.partition())
        else:
            found[message.partition(), message.offset()] = message.value()
    consumer.close()
    return found


def test_each_follows_the_others_and_all_logs_are_the_same(cluster: MixedCluster) -> None:
    topic = unique("equal")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=1)
    assert cluster.leaders(topic, asking=1) == {0: 1, 1: 2, 2: KPY}
    load = Load(cluster, topic)
    load.send(0, RECORDS)
    load.finish()
    assert not load.failed
    assert len(load.acknowledged) == RECORDS
    for partition in range(len(ASSIGNMENT)):
        batches = cluster.wait_until_equal(topic, partition)
        assert batches[-1].last_offset == RECORDS // len(ASSIGNMENT) - 1
    assert read_all(cluster, topic) == load.acknowledged
    assert cluster.isrs(topic, asking=KPY) == cluster.isrs(topic, asking=1) == dict.fromkeys(range(3), ALL)


@pytest.mark.parametrize("stop", ["stop", "kill"])
@pytest.mark.parametrize("broker_id", [KPY, 2])
def test_nothing_acknowledged_is_lost_when_a_broker_comes_and_goes(
    cluster: MixedCluster, broker_id: int, stop: str
) -> None:
    topic = unique("restart")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=1)
    with Load(cluster, topic) as load:
        broker = cluster.brokers[broker_id]
        if stop == "stop":
            broker.stop()
        else:
            broker.kill()
        cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL - {broker_id}, asking=1)
        if broker_id == KPY:
            cluster.start_kpy(KPY)
        else:
            cluster.start_kafka(broker_id)
        cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=1)
    assert not load.failed
    for partition in range(len(ASSIGNMENT)):
        cluster.wait_until_equal(topic, partition)
    found = read_all(cluster, topic)
    assert load.acknowledged.items() <= found.items()
    assert len(found) == len(load.acknowledged), "an idempotent producer leaves no record twice"


def test_a_deleted_topic_leaves_nothing_on_any_broker(cluster: MixedCluster) -> None:
    topic = unique("deleted")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=KPY)
    admin = AdminClient({"bootstrap.servers": cluster.brokers[1].bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    data_dirs = [broker.data_dir for broker in cluster.brokers.values()]
    wait_until(
        lambda: not any((data_dir / f"{topic}-{index}").exists() for data_dir in data_dirs for index in range(3)),
        f"{topic} is gone from {data_dirs}",
    )
