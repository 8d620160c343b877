"""kafka-transactions: what is open, who writes to a partition, and how to end what nobody else will end."""

import time

import pytest
from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from compat.differential.connection import Connection, decode, encode, frame
from compat.harness import BrokerFactory, BrokerProcess, unique
from compat.java.kafka_tools import KafkaTools, Output
from kpy.records.batch import NewRecord, build_batch
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

DAY_MS = 24 * 60 * 60 * 1000
PRODUCE, PRODUCE_VERSION = 0, 9


class Transactions:
    """kafka-transactions of one version of Apache Kafka. Its options for the cluster come before the command."""

    def __init__(self, version: str, broker: BrokerProcess) -> None:
        self._tools = KafkaTools(version, broker.bootstrap)
        self._bootstrap = broker.bootstrap

    def run(self, *arguments: str, exit_code: int = 0) -> Output:
        bootstrap = ("--bootstrap-server", self._bootstrap)
        return self._tools.run("transactions", *bootstrap, *arguments, exit_code=exit_code)


@pytest.fixture(params=["3.9.1", "4.3.1"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def test_an_open_transaction_is_listed_and_described(broker: BrokerProcess, version: str) -> None:
    tool = Transactions(version, broker)
    topic, transactional_id = unique("open"), unique("id")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": transactional_id, "log_level": 0})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"undecided", partition=0)
    assert producer.flush(20) == 0

    listed = tool.run("list").table("TransactionalId", "Coordinator", "ProducerId", "TransactionState")
    (row,) = [row for row in listed if row[0] == transactional_id]
    assert (row[1], row[3]) == ("1", "Ongoing")
    described = tool.run("describe", "--transactional-id", transactional_id).stdout
    assert "Ongoing" in described
    assert f"{topic}-0" in described
    writers = tool.run("describe-producers", "--topic", topic, "--partition", "0")
    columns = ("ProducerId", "ProducerEpoch", "LatestCoordinatorEpoch", "LastSequence", "LastTimestamp")
    (writer,) = writers.table(*columns, "CurrentTransactionStartOffset")
    assert (writer[0], writer[3], writer[5]) == (row[2], "0", "0")
    producer.abort_transaction(20)


def test_transactions_are_listed_by_a_pattern(broker: BrokerProcess) -> None:
    """KIP-1152, of kafka-transactions 4.3.1; RE2/J's syntax, and the whole id has to match."""
    prefix = unique("listed")
    for name in ("order-1", "order-12", "return-1"):
        config = {"bootstrap.servers": broker.bootstrap, "transactional.id": f"{prefix}-{name}", "log_level": 0}
        Producer(config).init_transactions(20)
    tool = Transactions("4.3.1", broker)

    def listed(pattern: str) -> list[str]:
        table = tool.run("list", "--transactional-id-pattern", pattern)
        rows = table.table("TransactionalId", "Coordinator", "ProducerId", "TransactionState")
        return sorted(row[0].removeprefix(f"{prefix}-") for row in rows)

    assert listed(f"{prefix}-.*-1") == ["order-1", "return-1"]
    assert listed(f"{prefix}-(?i)ORDER-[[:digit:]]+") == ["order-1", "order-12"]
    assert listed(f"{prefix}-order") == []
    tool.run("list", "--transactional-id-pattern", "(", exit_code=1)


def write_hanging(broker: BrokerProcess, topic: str) -> None:
    """A record of a transaction that no coordinator knows of, two days old."""
    record = NewRecord(int(time.time() * 1000) - 2 * DAY_MS, b"k", b"v")
    batch = build_batch([record], producer_id=4711, producer_epoch=0, base_sequence=0, transactional=True)
    request = ProduceRequest(
        "unknown", -1, 10_000, [TopicProduceData(topic, bytes(16), [PartitionProduceData(0, batch)])]
    )
    connection = Connection(int(broker.bootstrap.rsplit(":", 1)[1]))
    connection.send(frame(PRODUCE, PRODUCE_VERSION, encode(PRODUCE, PRODUCE_VERSION, request), 1))
    response = connection.receive()
    assert isinstance(response, bytes)
    answer = decode(PRODUCE, PRODUCE_VERSION, response, 1).responses[0].partition_responses[0]
    assert answer.error_code == 0, answer
    connection.close()


def test_a_hanging_transaction_is_found_and_aborted(fresh_broker: BrokerFactory, version: str) -> None:
    broker = fresh_broker({"transaction.partition.verification.enable": "false", "log.retention.ms": "-1"})
    tool = Transactions(version, broker)
    topic = unique("hanging")
    KafkaTools(version, broker.bootstrap).create_topic(topic, 1)
    write_hanging(broker, topic)

    found = tool.run("find-hanging", "--broker-id", "1")
    assert topic in found.stdout
    assert "4711" in found.stdout
    tool.run("abort", "--topic", topic, "--partition", "0", "--start-offset", "0")

    assert "4711" not in tool.run("find-hanging", "--broker-id", "1").stdout
    admin, partition = AdminClient({"bootstrap.servers": broker.bootstrap}), TopicPartition(topic, 0)
    asked = admin.list_offsets({partition: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_COMMITTED)
    assert asked[partition].result(10).offset == 2
