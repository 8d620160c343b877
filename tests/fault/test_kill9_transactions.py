"""A broker that is killed with SIGKILL in the middle of transactions: every one of them counts whole or not at all.

A producer writes one transaction after the other while the broker is killed and started again. Whenever it has lost
its place it asks for what is committed, which is always a number of whole transactions, and goes on from there. In the
end each is there once.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique, wait_until

ROUNDS = 4
TRANSACTIONS = 500
RECORDS_A_TRANSACTION = 10
PARTITIONS = 3
TIMEOUT_S = 30.0

pytestmark = pytest.mark.timeout(180)

CLIENT = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "socket.timeout.ms": 5_000,
    "log_level": 0,
}


class Writer:
    """Writes transaction after transaction, each over all partitions, every fifth of which it aborts first."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        self.committed = 0
        self.error: Exception | None = None
        self._broker = broker
        self._topic = topic
        self._transactional_id = unique("writer")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while self.committed < TRANSACTIONS:
                self._write_until_it_fails()
        except Exception as error:  # noqa: BLE001  # Raised again in the thread of the test.
            self.error = error

    def _write_until_it_fails(self) -> None:
        """One life of the producer. It goes on after what it finds committed, which must be whole transactions."""
        settings = {"bootstrap.servers": self._broker.bootstrap, "transactional.id": self._transactional_id}
        producer = Producer({**CLIENT, **settings})
        try:
            producer.init_transactions(TIMEOUT_S)
            found = read_committed(self._broker, self._topic)
            assert found == records_of(range(len(found) // RECORDS_A_TRANSACTION))
            self.committed = len(found) // RECORDS_A_TRANSACTION
            while self.committed < TRANSACTIONS:
                if self.committed % 5 == 4:
                    self._write(producer)
                    producer.abort_transaction(TIMEOUT_S)
                self._write(producer)
                producer.commit_transaction(TIMEOUT_S)
                self.committed += 1
        except KafkaException as failed:
            if failed.args[0].txn_requires_abort():
                producer.abort_transaction(TIMEOUT_S)

    def _write(self, producer: Producer) -> None:
        producer.begin_transaction()
        for value in records_of([self.committed]):
            producer.produce(self._topic, value, partition=int(value) % PARTITIONS)


def records_of(transactions: Iterable[int]) -> Counter[bytes]:
    """Each record of these transactions, once."""
    size = RECORDS_A_TRANSACTION
    return Counter(b"%d" % (number * size + each) for number in transactions for each in range(size))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    # Small segments, so that transactions reach over several of them.
    started = BrokerProcess(tmp_path, {"log.segment.bytes": "20000"})
    started.start()
    try:
        yield started
    finally:
        started.close()


def read_committed(broker: BrokerProcess, topic: str) -> Counter[bytes]:
    """How often each value is read by a consumer of committed records."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            **CLIENT,
            "group.id": unique("reader"),
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    values: Counter[bytes] = Counter()
    try:
        consumer.assign([TopicPartition(topic, index, 0) for index in range(PARTITIONS)])
        open_partitions = set(range(PARTITIONS))
        while open_partitions:
            message = consumer.poll(20)
            assert message is not None, f"partitions {open_partitions} do not end"
            error, value = message.error(), message.value()
            if error is None:
                values[value or b""] += 1
            else:
                assert error.code() == KafkaError._PARTITION_EOF, error
                open_partitions.discard(message.partition() or 0)
    finally:
        consumer.close()
    return values


def test_every_transaction_counts_once_and_whole(broker: BrokerProcess) -> None:
    topic = unique("killed")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(10)

    writer = Writer(broker, topic)
    for kills in range(1, ROUNDS + 1):
        enough = kills * TRANSACTIONS // (ROUNDS + 1)
        wait_until(lambda enough=enough: writer.error or writer.committed >= enough, "transactions", timeout_s=60)
        broker.kill()
        broker.start()
    writer.wait()

    assert read_committed(broker, topic) == records_of(range(TRANSACTIONS))
