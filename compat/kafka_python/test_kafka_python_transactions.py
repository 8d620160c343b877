"""kafka-python's transactions: commit, abort, offsets with records, and fencing."""

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, ProducerFencedError
from kafka.structs import OffsetAndMetadata

from compat.harness import unique
from compat.kafka_python.clients import Clients, read_to_end, values_of


def committed_values(clients: Clients, topic: str) -> list[bytes]:
    return values_of(read_to_end(clients.reader(TopicPartition(topic, 0), isolation_level="read_committed")))


def test_committed_records_are_read_and_aborted_ones_are_not(clients: Clients) -> None:
    topic = clients.topic("txn")
    producer = clients.producer(transactional_id=unique("id"))
    producer.init_transactions()
    for number in range(4):
        producer.begin_transaction()
        producer.send(topic, b"%d" % number)
        producer.flush()
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    assert committed_values(clients, topic) == [b"0", b"2"]
    everything = values_of(read_to_end(clients.reader(TopicPartition(topic, 0))))
    assert everything == [b"0", b"1", b"2", b"3"]


def test_offsets_are_committed_with_the_records(clients: Clients) -> None:
    source, sink, group = clients.topic("source"), clients.topic("sink"), unique("group")
    partition = TopicPartition(source, 0)
    producer = clients.producer(transactional_id=unique("id"))
    producer.init_transactions()
    consumer = clients.consumer(group_id=group, enable_auto_commit=False)
    consumer.assign([partition])
    for offset, is_committed in ((3, True), (5, False)):
        producer.begin_transaction()
        producer.send(sink, b"out")
        producer.send_offsets_to_transaction({partition: OffsetAndMetadata(offset, "", -1)}, group)
        if is_committed:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    assert consumer.committed(partition) == 3
    assert committed_values(clients, sink) == [b"out"]


def test_a_second_producer_of_the_id_fences_the_first(clients: Clients) -> None:
    topic, transactional_id = clients.topic("fenced"), unique("id")
    first = clients.producer(transactional_id=transactional_id)
    first.init_transactions()
    first.begin_transaction()
    first.send(topic, b"zombie")
    first.flush()
    second = clients.producer(transactional_id=transactional_id)
    second.init_transactions()
    with pytest.raises(KafkaError) as fenced:
        first.commit_transaction()
    assert isinstance(fenced.value, ProducerFencedError) or "fenced" in str(fenced.value).lower()
    second.begin_transaction()
    second.send(topic, b"heir")
    second.commit_transaction()
    assert committed_values(clients, topic) == [b"heir"]
