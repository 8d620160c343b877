"""Producers and readers for a cluster of several brokers: what was acknowledged, and what is there."""

import threading

from confluent_kafka import Consumer, Producer, TopicPartition

from compat.harness import unique
from compat.replication.cluster import Cluster

PARTITIONS = 3


class Load:
    """Numbered records to all partitions with acks=all, and which of them were acknowledged where."""

    def __init__(self, cluster: Cluster, topic: str, **settings: str) -> None:
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
                self.topic, b"%d" % number, partition=number % PARTITIONS, on_delivery=self._delivered
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


def read_all(cluster: Cluster, topic: str) -> dict[tuple[int, int], bytes]:
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
    consumer.assign([TopicPartition(topic, index, 0) for index in range(PARTITIONS)])
    found: dict[tuple[int, int], bytes] = {}
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        message = consumer.poll(30)
        assert message is not None, "nothing to read for 30 s"
        if message.error() is not None:
            ended.add(message.partition())
        else:
            found[message.partition(), message.offset()] = message.value()
    consumer.close()
    return found
