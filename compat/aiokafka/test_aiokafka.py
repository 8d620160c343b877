"""aiokafka: its producer, consumer, groups and admin client, each test in an event loop of its own."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata

from compat.aiokafka.clients import (
    Clients,
    numbered,
    read,
    read_to_end,
    send_all,
    values_of,
    wait_until_async,
)
from compat.harness import BrokerProcess, unique


@pytest.mark.parametrize("acks", [1, "all"])
async def test_acknowledged_records_have_the_offsets_they_are_read_at(broker: BrokerProcess, acks: int | str) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("acks")
        values = numbered(200)

        answers = await send_all(await clients.producer(acks=acks), topic, values)

        assert [answer.offset for answer in answers] == list(range(200))
        records = await read_to_end(await clients.reader(TopicPartition(topic, 0)))
        assert [(record.offset, record.value) for record in records] == list(enumerate(values))


async def test_an_idempotent_producer_keeps_order(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("idempotent", partitions=2)
        producer = await clients.producer(enable_idempotence=True, max_batch_size=500)
        values = numbered(1000)

        futures = [await producer.send(topic, value, partition=n % 2) for n, value in enumerate(values)]
        await asyncio.gather(*futures)

        for index in range(2):
            records = await read_to_end(await clients.reader(TopicPartition(topic, index)))
            assert [(record.offset, record.value) for record in records] == list(enumerate(values[index::2]))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_each_codec_is_read_back(broker: BrokerProcess, codec: str) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic(f"codec-{codec}")
        values = [f"{number} ".encode() * 50 for number in range(500)]
        producer = await clients.producer(compression_type=codec, linger_ms=20)

        await send_all(producer, topic, values, key=b"key", headers=[("codec", codec.encode())])

        records = await read_to_end(await clients.reader(TopicPartition(topic, 0)))
        assert [(record.offset, record.value) for record in records] == list(enumerate(values))
        assert {(record.key, record.headers) for record in records} == {(b"key", (("codec", codec.encode()),))}


@pytest.mark.parametrize("stored", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
async def test_a_topics_own_codec_replaces_the_producers(broker: BrokerProcess, stored: str) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("recompressed", configs={"compression.type": stored})
        values = [f"{number} ".encode() * 50 for number in range(200)]

        await send_all(await clients.producer(compression_type="snappy", linger_ms=20), topic, values)

        records = await read_to_end(await clients.reader(TopicPartition(topic, 0)))
        assert [(record.offset, record.value) for record in records] == list(enumerate(values))


async def test_keys_headers_timestamps_and_nulls_are_kept(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("whole")
        producer = await clients.producer()
        headers = [("a", b"1"), ("a", b""), ("größe", "zwölf".encode())]

        await producer.send_and_wait(topic, b"value", key=b"key", headers=headers, timestamp_ms=1234)
        await producer.send_and_wait(topic, None, key=b"deleted")
        await producer.send_and_wait(topic, b"", key=None)

        first, second, third = await read_to_end(await clients.reader(TopicPartition(topic, 0)))
        assert (first.key, first.value, first.timestamp, list(first.headers)) == (b"key", b"value", 1234, headers)
        assert (second.key, second.value) == (b"deleted", None)
        assert (third.key, third.value) == (None, b"")


async def test_a_batch_built_by_hand_is_one_batch(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("batch", partitions=2)
        producer = await clients.producer()
        batch = producer.create_batch()
        for value in numbered(50):
            batch.append(key=None, value=value, timestamp=None)

        answer = await (await producer.send_batch(batch, topic, partition=1))

        assert (answer.partition, answer.offset) == (1, 0)
        assert values_of(await read_to_end(await clients.reader(TopicPartition(topic, 1)))) == numbered(50)


async def test_a_record_above_the_topics_limit_is_refused(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("limit", configs={"max.message.bytes": "10000"})
        producer = await clients.producer(max_request_size=1_000_000)

        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, b"x" * 20_000)
        assert (await producer.send_and_wait(topic, b"x" * 9000)).offset == 0


async def test_producing_to_an_unknown_topic_creates_it(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = unique("auto.created")

        await send_all(await clients.producer(), topic, numbered(3))

        assert values_of(await read_to_end(await clients.reader(TopicPartition(topic, 0)))) == numbered(3)


async def test_seek_position_and_ends(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        partition = TopicPartition(await clients.topic("seek"), 0)
        await send_all(await clients.producer(), partition.topic, numbered(50))
        consumer = await clients.reader(partition)

        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 50}
        consumer.seek(partition, 42)
        assert values_of(await read_to_end(consumer)) == numbered(50)[42:]
        assert await consumer.position(partition) == 50
        assert consumer.highwater(partition) == 50
        await consumer.seek_to_beginning(partition)
        assert values_of(await read(consumer, 3)) == numbered(3)
        await consumer.seek_to_end(partition)
        assert await consumer.position(partition) == 50


async def test_offsets_for_times(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        partition = TopicPartition(await clients.topic("times"), 0)
        producer = await clients.producer(linger_ms=100)
        start_ms = 1_700_000_000_000
        futures = [
            await producer.send(partition.topic, b"v", timestamp_ms=start_ms + number * 1000) for number in range(10)
        ]
        await asyncio.gather(*futures)
        consumer = await clients.consumer()

        async def found(timestamp_ms: int) -> tuple[int, int] | None:
            at = (await consumer.offsets_for_times({partition: timestamp_ms}))[partition]
            return None if at is None else (at.offset, at.timestamp)

        assert await found(0) == (0, start_ms)
        assert await found(start_ms + 3500) == (4, start_ms + 4000)
        assert await found(start_ms + 9001) is None


async def test_pause_and_resume(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("pause", partitions=2)
        paused, running = TopicPartition(topic, 0), TopicPartition(topic, 1)
        producer = await clients.producer()
        consumer = await clients.reader(paused, running)
        consumer.pause(paused)
        await send_all(producer, topic, numbered(10, "paused"), partition=0)
        await send_all(producer, topic, numbered(10, "running"), partition=1)

        assert values_of(await read(consumer, 10)) == numbered(10, "running")
        consumer.resume(paused)
        assert values_of(await read(consumer, 10)) == numbered(10, "paused")


async def test_an_offset_out_of_range_is_reported_or_reset(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        partition = TopicPartition(await clients.topic("range"), 0)
        await send_all(await clients.producer(), partition.topic, numbered(5))

        strict = await clients.reader(partition, auto_offset_reset="none")
        strict.seek(partition, 100)
        with pytest.raises(OffsetOutOfRangeError):
            await strict.getone()

        lenient = await clients.reader(partition, auto_offset_reset="earliest")
        lenient.seek(partition, 100)
        assert values_of(await read(lenient, 5)) == numbered(5)


async def test_a_waiting_fetch_is_woken_by_each_record(broker: BrokerProcess) -> None:
    """Each record is produced only after the one before it was received.

    A broker that lets the fetch wait its 10 s out would need minutes, which the time limit of the test does not give.
    """
    async with Clients(broker.bootstrap) as clients:
        partition = TopicPartition(await clients.topic("ping"), 0)
        producer = await clients.producer()
        consumer = await clients.reader(partition, fetch_max_wait_ms=10_000)

        for number in range(30):
            waiting = asyncio.create_task(consumer.getone())
            await producer.send_and_wait(partition.topic, b"%d" % number)
            assert (await waiting).value == b"%d" % number


class Member:
    """A consumer in a group with a task that reads it, and the partitions it was given and lost, in order."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer = consumer
        self.received: list[ConsumerRecord] = []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            self.received.append(await self.consumer.getone())

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.consumer.stop()


async def settle(members: list[Member], topic: str, partitions: int) -> None:
    """Wait until every partition has exactly one member and every member a partition."""

    async def settled() -> bool:
        owned = [member.consumer.assignment() for member in members]
        return all(owned) and sorted(partition for some in owned for partition in some) == [
            TopicPartition(topic, index) for index in range(partitions)
        ]

    await wait_until_async(settled, "each partition has one member")


async def exchange(clients: Clients, members: list[Member], topic: str, partitions: int, values: list[bytes]) -> None:
    """Produce to all partitions in turn; each record must come once, to the member that has its partition."""
    producer = await clients.producer()
    for number, value in enumerate(values):
        await producer.send(topic, value, partition=number % partitions)
    await producer.flush()
    expected = set(values)

    def came(member: Member) -> list[ConsumerRecord]:
        return [record for record in member.received if record.value in expected]

    async def all_came() -> bool:
        return sum(len(came(member)) for member in members) >= len(values)

    await wait_until_async(all_came, "every record is received")
    for member in members:
        for partition in member.consumer.assignment():
            index = partition.partition
            assert [r.value for r in came(member) if r.partition == index] == values[index::partitions]
    assert sum(len(came(member)) for member in members) == len(values)


async def test_members_join_and_leave(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("rebalance", partitions=6)
        group = unique("group")
        members: list[Member] = []
        for count in (1, 2, 3):
            members.append(Member(await clients.consumer(topic, group_id=group)))
            await settle(members, topic, 6)
            assert {len(member.consumer.assignment()) for member in members} == {6 // count}
            await exchange(clients, members, topic, 6, numbered(30, f"{count} members"))

        await members.pop(0).leave()
        await settle(members, topic, 6)
        await exchange(clients, members, topic, 6, numbered(30, "two members again"))
        for member in members:
            await member.leave()


async def test_a_restarted_consumer_resumes_where_it_committed(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("resume")
        partition = TopicPartition(topic, 0)
        group = unique("group")
        await send_all(await clients.producer(), topic, numbered(30))

        first = await clients.consumer(topic, group_id=group, enable_auto_commit=False)
        assert values_of(await read(first, 10)) == numbered(10)
        await first.commit({partition: OffsetAndMetadata(10, "größe 10")})
        await read(first, 10)
        await first.stop()

        second = await clients.consumer(topic, group_id=group, enable_auto_commit=False)
        assert await second.committed(partition) == 10
        assert values_of(await read(second, 20)) == numbered(30)[10:]


async def test_stopping_commits_automatically(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("auto-commit")
        group = unique("group")
        await send_all(await clients.producer(), topic, numbered(10))
        first = await clients.consumer(topic, group_id=group, auto_commit_interval_ms=60_000)
        await read(first, 10)
        await first.stop()

        observer = await clients.consumer(group_id=group)
        observer.assign([TopicPartition(topic, 0)])
        assert await observer.committed(TopicPartition(topic, 0)) == 10


async def test_a_static_member_comes_back_without_a_rebalance(broker: BrokerProcess) -> None:
    """KIP-345."""
    assigned: list[object] = []

    class Counting(ConsumerRebalanceListener):
        async def on_partitions_revoked(self, revoked: object) -> None:
            pass

        async def on_partitions_assigned(self, partitions: object) -> None:
            assigned.append(partitions)

    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("static", partitions=2)
        group = unique("group")
        observed = await clients.consumer(group_id=group, group_instance_id="a")
        observed.subscribe([topic], listener=Counting())
        first = Member(observed)
        await settle([first], topic, 2)
        second = Member(await clients.consumer(topic, group_id=group, group_instance_id="b"))
        await settle([first, second], topic, 2)
        before = second.consumer.assignment()

        async def heard_of_both() -> bool:
            return len(assigned) == 2

        await wait_until_async(heard_of_both, "the listener of the first")
        await second.leave()
        again = Member(await clients.consumer(topic, group_id=group, group_instance_id="b"))
        await settle([first, again], topic, 2)

        assert again.consumer.assignment() == before
        await exchange(clients, [first, again], topic, 2, numbered(10))
        assert len(assigned) == 2
        for member in (first, again):
            await member.leave()


async def test_topics_are_created_described_extended_and_deleted(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        admin = await clients.admin()
        topic = await clients.topic("admin", partitions=2)

        assert topic in await admin.list_topics()
        (described,) = await admin.describe_topics([topic])
        assert sorted(partition["partition"] for partition in described["partitions"]) == [0, 1]
        await admin.create_partitions({topic: NewPartitions(5)})

        async def has_five() -> bool:
            (now,) = await admin.describe_topics([topic])
            return len(now["partitions"]) == 5

        await wait_until_async(has_five, "five partitions")
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await wait_until_async(gone, "the topic is gone")


async def test_configs_are_described_and_altered(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        admin = await clients.admin()
        topic = await clients.topic("configs")

        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "3600000"})])

        async def altered() -> bool:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            ((_, _, _, name, entries),) = answer.resources
            assert name == topic
            return {entry[0]: entry[1] for entry in entries}["retention.ms"] == "3600000"

        await wait_until_async(altered, "the config is set")


async def test_groups_and_the_cluster_are_described(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        admin = await clients.admin()
        topic = await clients.topic("grouped")
        group = unique("group")
        await send_all(await clients.producer(), topic, numbered(5))
        consumer = await clients.consumer(topic, group_id=group)
        await read(consumer, 5)
        await consumer.commit()

        assert (group, "consumer") in [tuple(listed[:2]) for listed in await admin.list_consumer_groups()]
        (answer,) = await admin.describe_consumer_groups([group])
        (described,) = answer.groups
        assert described[1:4] == (group, "Stable", "consumer")
        offsets = await admin.list_consumer_group_offsets(group)
        assert offsets[TopicPartition(topic, 0)].offset == 5
        cluster = await admin.describe_cluster()
        assert [(node["host"], node["port"]) for node in cluster["brokers"]] == [("127.0.0.1", broker.port)]


async def test_log_append_time_is_the_brokers(broker: BrokerProcess) -> None:
    async with Clients(broker.bootstrap) as clients:
        topic = await clients.topic("append-time", configs={"message.timestamp.type": "LogAppendTime"})
        before_ms = int(time.time() * 1000)

        answer = await (await clients.producer()).send_and_wait(topic, b"v", timestamp_ms=1)

        (record,) = await read_to_end(await clients.reader(TopicPartition(topic, 0)))
        assert record.timestamp_type == 1
        assert before_ms <= record.timestamp == answer.timestamp
