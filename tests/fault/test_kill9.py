"""A broker that is killed with SIGKILL, several times under load, keeps every record that it has acknowledged.

librdkafka's producers write all the time and note what was acknowledged; the broker is killed once some more is, and
started again on the same directory. The page cache outlives the process, so nothing that was answered may be missing:
neither with acks=1 nor with acks=all, neither records nor committed offsets.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique, wait_until

ROUNDS = 3
RECORDS_A_ROUND = 1000
PARTITIONS = 3
SEGMENT_BYTES = 100_000

pytestmark = pytest.mark.timeout(120)


class Acknowledged(NamedTuple):
    partition: int
    offset: int
    value: bytes


class Load:
    """A producer in a thread of its own that writes numbered records until it is stopped."""

    def __init__(self, bootstrap: str, topic: str, name: str, settings: dict[str, Any]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._topic = topic
        self._name = name
        # A record is retried for longer than the broker is ever away, so that its report tells of the log, not of time.
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 1,
                "batch.num.messages": 20,
                "message.timeout.ms": 60_000,
                "socket.timeout.ms": 5_000,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
                **settings,
            }
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        number = 0
        while not self._stopped.is_set():
            if len(self._producer) < 500:
                value = f"{self._name} {number}".encode()
                self._producer.produce(self._topic, value, partition=number % PARTITIONS, on_delivery=self._on_delivery)
                number += 1
            self._producer.poll(0 if number % 20 else 0.001)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        partition, offset, value = message.partition(), message.offset(), message.value()
        if error is None and partition is not None and offset is not None and value is not None and offset >= 0:
            self.acknowledged.append(Acknowledged(partition, offset, value))

    def stop(self) -> None:
        """Stop writing and wait for the answers that are still open; the broker must run."""
        self._stopped.set()
        self._thread.join()
        assert self._producer.flush(30) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    # Small segments, so that the kills hit rolls of segments and recovery has several to look at.
    started = BrokerProcess(tmp_path, {"log.segment.bytes": str(SEGMENT_BYTES)})
    started.start()
    try:
        yield started
    finally:
        started.close()


def create_topic(broker: BrokerProcess) -> str:
    topic = unique("killed")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(10)
    return topic


def read_everything(broker: BrokerProcess, topic: str) -> dict[int, list[bytes]]:
    """The values of each partition in the order of their offsets, which must have no gaps."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": unique("reader"), "enable.partition.eof": True}
    )
    values: dict[int, list[bytes]] = {index: [] for index in range(PARTITIONS)}
    try:
        consumer.assign([TopicPartition(topic, index, 0) for index in range(PARTITIONS)])
        open_partitions = set(range(PARTITIONS))
        while open_partitions:
            message = consumer.poll(20)
            assert message is not None, f"partitions {open_partitions} do not end"
            error, partition, value = message.error(), message.partition(), message.value()
            assert partition is not None
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_partitions.discard(partition)
                continue
            assert message.offset() == len(values[partition])
            assert value is not None
            values[partition].append(value)
    finally:
        consumer.close()
    return values


def _wait_for(load: Load, count: int) -> None:
    wait_until(lambda: len(load.acknowledged) >= count, f"{count} records acknowledged", timeout_s=30)


def kill_under_load(broker: BrokerProcess, load: Load) -> None:
    """Kill and restart the broker several times, each time after more was acknowledged."""
    for kills in range(1, ROUNDS + 1):
        _wait_for(load, kills * RECORDS_A_ROUND)
        broker.kill()
        broker.start()


def _wait_for_more(receive: Callable[[], int], count: int) -> None:
    wait_until(lambda: receive() >= count, f"{count} records received", timeout_s=30)


@pytest.mark.parametrize("acks", ["1", "all"])
def test_every_acknowledged_record_is_at_its_offset(broker: BrokerProcess, acks: str) -> None:
    topic = create_topic(broker)
    load = Load(broker.bootstrap, topic, "load", {"acks": acks})

    kill_under_load(broker, load)
    load.stop()

    stored = read_everything(broker, topic)
    assert len(load.acknowledged) >= ROUNDS * RECORDS_A_ROUND
    for partition, offset, value in load.acknowledged:
        assert stored[partition][offset] == value


def test_an_idempotent_producer_writes_each_record_once_and_in_order(broker: BrokerProcess) -> None:
    """The producer state comes back with the log, so that retries after a kill are known as duplicates (KIP-98)."""
    topic = create_topic(broker)
    load = Load(broker.bootstrap, topic, "load", {"enable.idempotence": True})

    kill_under_load(broker, load)
    load.stop()

    stored = read_everything(broker, topic)
    count = sum(len(values) for values in stored.values())
    assert count == len(load.acknowledged)
    for partition in range(PARTITIONS):
        assert stored[partition] == [b"load %d" % number for number in range(partition, count, PARTITIONS)]
    for partition, offset, value in load.acknowledged:
        assert stored[partition][offset] == value


def test_a_group_resumes_from_its_last_acknowledged_commit(broker: BrokerProcess) -> None:
    topic = create_topic(broker)
    group = unique("group")
    partition = TopicPartition(topic, 0)
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": group, "log_level": 0, "reconnect.backoff.max.ms": 100}
    )
    committed = 0
    try:
        for _ in range(ROUNDS):
            for _ in range(50):
                committed += 1
                consumer.commit(offsets=[TopicPartition(topic, 0, committed)], asynchronous=False)
            broker.kill()
            broker.start()

            def found() -> int | None:
                try:
                    (answer,) = consumer.committed([partition], timeout=5)
                except KafkaException:
                    return None  # The connection of before the kill; the next call makes a new one.
                return answer.offset

            wait_until(lambda: found() is not None, "the coordinator answers")
            assert found() == committed
    finally:
        consumer.close()


def test_a_consumer_goes_on_where_it_was_while_the_broker_dies(broker: BrokerProcess) -> None:
    topic = create_topic(broker)
    load = Load(broker.bootstrap, topic, "load", {"enable.idempotence": True})
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": unique("group"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 100,
            "heartbeat.interval.ms": 500,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    received: dict[int, list[bytes | None]] = {index: [] for index in range(PARTITIONS)}

    def receive() -> int:
        message = consumer.poll(0.05)
        while message is not None:
            if message.error() is None:
                received[message.partition() or 0].append(message.value())
            message = consumer.poll(0)
        return sum(len(values) for values in received.values())

    try:
        for kills in range(1, ROUNDS + 1):
            _wait_for_more(receive, kills * RECORDS_A_ROUND)
            broker.kill()
            broker.start()
        load.stop()
        _wait_for_more(receive, len(load.acknowledged))
    finally:
        load.stop()
        consumer.close()

    count = len(load.acknowledged)
    for index in range(PARTITIONS):
        assert received[index] == [b"load %d" % number for number in range(index, count, PARTITIONS)]
