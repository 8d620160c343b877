"""aiokafka's transactions: commit, abort, consume-transform-produce, and fencing."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from compat.aiokafka.clients import Clients, numbered, read, read_to_end, send_all, values_of
from compat.harness import BrokerProcess, unique


async def committed_values(clients: Clients, topic: str) -> list[bytes]:
    reader = await clients.reader(TopicPartition(topic, 0), isolation_level="read_committed")
    return values_of(await read_to_end(reader))


async def test_committed_records_are_read_and_aborted_ones_are_not(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("txn")
        producer = await clients.producer(transactional_id=unique("id"))
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"dropped")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"kept too")
        assert await committed_values(clients, topic) == [b"kept", b"kept too"]


async def test_consume_transform_produce_commits_offsets_with_the_records(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        source, sink, group = await clients.topic("source"), await clients.topic("sink"), unique("group")
        await send_all(await clients.producer(), source, numbered(10))
        consumer = await clients.consumer(source, group_id=group, enable_auto_commit=False)
        records = await read(consumer, 10)
        producer = await clients.producer(transactional_id=unique("id"))
        partition = TopicPartition(source, 0)
        async with producer.transaction():
            for record in records:
                await producer.send(sink, record.value)
            await producer.send_offsets_to_transaction({partition: 10}, group)
        assert await consumer.committed(partition) == 10
        assert await committed_values(clients, sink) == numbered(10)


async def test_a_second_producer_of_the_id_fences_the_first(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic, transactional_id = await clients.topic("fenced"), unique("id")
        first = await clients.producer(transactional_id=transactional_id)
        await first.begin_transaction()
        await first.send_and_wait(topic, b"zombie")
        second = await clients.producer(transactional_id=transactional_id)
        async with second.transaction():
            await second.send_and_wait(topic, b"heir")
        with pytest.raises(ProducerFenced):
            await first.commit_transaction()
        assert await committed_values(clients, topic) == [b"heir"]
