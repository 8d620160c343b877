"""librdkafka's transactions: what is committed is read once, what is aborted never, and who is replaced is fenced."""

import pytest
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from compat.confluent.clients import Clients, numbered, read_to_end, values_of
from compat.harness import BrokerFactory, unique

TIMEOUT_S = 20.0


def transactional(clients: Clients, transactional_id: str, **settings: object) -> Producer:
    named = {key.replace("_", "."): value for key, value in settings.items()}
    producer = clients.transactional_producer({"transactional.id": transactional_id, **named})
    producer.init_transactions(TIMEOUT_S)
    return producer


def write(producer: Producer, topic: str, values: list[bytes], partitions: int = 1) -> None:
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % partitions)
    assert producer.flush(TIMEOUT_S) == 0


def read(clients: Clients, topic: str, partitions: int = 1, isolation: str = "read_committed") -> list[bytes | None]:
    reader = clients.reader(
        *(TopicPartition(topic, index, 0) for index in range(partitions)), settings={"isolation.level": isolation}
    )
    return sorted(values_of(read_to_end(reader)), key=str)


def test_committed_records_are_read_and_aborted_ones_are_not(clients: Clients) -> None:
    topic = clients.topic("txn", partitions=3)
    producer = transactional(clients, unique("id"))
    committed: list[bytes] = []
    for number in range(6):
        values = numbered(30, f"{number} ")
        producer.begin_transaction()
        write(producer, topic, values, 3)
        if number % 2:
            producer.abort_transaction(TIMEOUT_S)
        else:
            producer.commit_transaction(TIMEOUT_S)
            committed += values
    assert read(clients, topic, 3) == sorted(committed, key=str)
    assert len(read(clients, topic, 3, "read_uncommitted")) == 180


def test_open_transactions_hold_readers_back_and_end_offsets(clients: Clients) -> None:
    topic = clients.topic("open")
    producer = transactional(clients, unique("id"))
    producer.begin_transaction()
    write(producer, topic, [b"undecided"])
    plain = clients.producer()
    write(plain, topic, [b"behind"])
    assert read(clients, topic) == []
    admin = clients.admin()
    partition = TopicPartition(topic, 0)
    ends = {
        level: admin.list_offsets({partition: OffsetSpec.latest()}, isolation_level=level)[partition].result(10).offset
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    }
    assert ends == {IsolationLevel.READ_COMMITTED: 0, IsolationLevel.READ_UNCOMMITTED: 2}
    producer.commit_transaction(TIMEOUT_S)
    assert read(clients, topic) == [b"behind", b"undecided"]


def test_a_second_producer_of_the_id_fences_the_first_and_ends_its_transaction(clients: Clients) -> None:
    topic, transactional_id = clients.topic("fenced"), unique("id")
    first = transactional(clients, transactional_id)
    first.begin_transaction()
    write(first, topic, [b"zombie"])
    second = transactional(clients, transactional_id)
    with pytest.raises(KafkaException) as fenced:
        first.commit_transaction(TIMEOUT_S)
    assert fenced.value.args[0].code() == KafkaError._FENCED
    second.begin_transaction()
    write(second, topic, [b"heir"])
    second.commit_transaction(TIMEOUT_S)
    assert read(clients, topic) == [b"heir"]


def test_consume_transform_produce_commits_offsets_with_the_records(clients: Clients) -> None:
    source, sink, group = clients.topic("source"), clients.topic("sink"), unique("group")
    write(clients.producer(), source, numbered(20))
    producer = transactional(clients, unique("id"))
    consumer = clients.consumer({"group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed"})
    consumer.subscribe([source])
    for is_committed in (False, True):
        messages = consumer.consume(20, TIMEOUT_S)
        assert len(messages) == 20
        producer.begin_transaction()
        write(producer, sink, [b"seen " + (message.value() or b"") for message in messages])
        position = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), TIMEOUT_S)
        if is_committed:
            producer.commit_transaction(TIMEOUT_S)
        else:
            producer.abort_transaction(TIMEOUT_S)
            consumer.seek(TopicPartition(source, 0, 0))
        (offset,) = consumer.committed([TopicPartition(source, 0)], timeout=TIMEOUT_S)
        assert offset.offset == (20 if is_committed else -1001)
    assert read(clients, sink) == sorted([b"seen " + value for value in numbered(20)], key=str)
    admin = clients.admin()
    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
    assert [(each.topic, each.offset) for each in listed.topic_partitions or []] == [(source, 20)]


def test_a_member_that_left_cannot_commit_in_a_transaction(clients: Clients) -> None:
    """KIP-447: the producer is fenced by its consumer's generation."""
    source = clients.topic("left")
    write(clients.producer(), source, [b"one"])
    producer = transactional(clients, unique("id"))
    consumer = clients.consumer({"enable.auto.commit": False})
    consumer.subscribe([source])
    assert consumer.consume(1, TIMEOUT_S)
    metadata = consumer.consumer_group_metadata()
    consumer.close()
    producer.begin_transaction()
    with pytest.raises(KafkaException) as refused:
        producer.send_offsets_to_transaction([TopicPartition(source, 0, 1)], metadata, TIMEOUT_S)
    assert refused.value.args[0].code() in (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID)
    assert refused.value.args[0].txn_requires_abort()
    producer.abort_transaction(TIMEOUT_S)


def test_a_timeout_above_the_maximum_is_refused(clients: Clients) -> None:
    settings = {"transactional.id": unique("id"), "transaction.timeout.ms": 900_001}
    producer = clients.transactional_producer(settings)
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(TIMEOUT_S)
    assert refused.value.args[0].code() == KafkaError.INVALID_TRANSACTION_TIMEOUT


def test_a_transaction_that_takes_too_long_is_aborted(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker({"transaction.abort.timed.out.transaction.cleanup.interval.ms": "100"})
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("slow")
        settings = {"transaction_timeout_ms": 1000, "message_timeout_ms": 1000}
        producer = transactional(clients, unique("id"), **settings)
        producer.begin_transaction()
        write(producer, topic, [b"late"])
        # The end of it is what this reader waits for.
        write(clients.producer(), topic, [b"behind"])
        consumer = clients.reader(TopicPartition(topic, 0, 0), settings={"enable.partition.eof": False})
        assert values_of(consumer.consume(1, TIMEOUT_S)) == [b"behind"]
        with pytest.raises(KafkaException) as fenced:
            producer.commit_transaction(TIMEOUT_S)
        assert fenced.value.args[0].code() == KafkaError._FENCED


def test_transactions_survive_a_restart_of_the_broker(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("restart")
        producer = transactional(clients, unique("id"))
        producer.begin_transaction()
        write(producer, topic, [b"before"])
        broker.restart()
        write(producer, topic, [b"after"])
        producer.commit_transaction(TIMEOUT_S)
        assert read(clients, topic) == [b"after", b"before"]
