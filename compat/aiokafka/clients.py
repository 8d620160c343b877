"""aiokafka clients for tests: made with defaults that suit a local broker, started, and stopped with the test."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import ConsumerRecord, RecordMetadata

from compat.harness import POLL_INTERVAL_S, unique

READ_TIMEOUT_S = 20.0


class Clients:
    """Makes clients of one broker; leaving the context stops all of them, the last one first."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def producer(self, **settings: Any) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, **settings)
        await producer.start()
        self._stack.push_async_callback(producer.stop)
        return producer

    async def consumer(self, *topics: str, **settings: Any) -> AIOKafkaConsumer:
        settings = {"auto_offset_reset": "earliest", "heartbeat_interval_ms": 200, **settings}
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **settings)
        await consumer.start()
        self._stack.push_async_callback(consumer.stop)
        return consumer

    async def reader(self, *partitions: TopicPartition, **settings: Any) -> AIOKafkaConsumer:
        """A consumer without a group that has these partitions."""
        consumer = await self.consumer(**settings)
        consumer.assign(list(partitions))
        return consumer

    async def admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        self._stack.push_async_callback(admin.close)
        return admin

    async def topic(self, prefix: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic of its own for a test; it has leaders when this returns."""
        name = unique(prefix)
        admin = await self.admin()
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])

        async def has_leaders() -> bool:
            (topic,) = await admin.describe_topics([name])
            return len(topic["partitions"]) == partitions and all(p["leader"] >= 0 for p in topic["partitions"])

        await wait_until_async(has_leaders, f"the leaders of {name}")
        return name


async def wait_until_async(condition: Any, what: str, timeout_s: float = 20.0) -> None:
    """Await `condition()` until it is true; AssertionError with `what` when it is not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(POLL_INTERVAL_S)


def numbered(count: int, prefix: str = "value") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


async def send_all(producer: AIOKafkaProducer, topic: str, values: list[bytes], **record: Any) -> list[RecordMetadata]:
    """Send the values in order, wait for all answers, and return them."""
    return [await future for future in [await producer.send(topic, value, **record) for value in values]]


async def read(consumer: AIOKafkaConsumer, count: int) -> list[ConsumerRecord]:
    async with asyncio.timeout(READ_TIMEOUT_S):
        return [await consumer.getone() for _ in range(count)]


async def read_to_end(consumer: AIOKafkaConsumer) -> list[ConsumerRecord]:
    """Read every record that the assigned partitions hold now."""
    ends = await consumer.end_offsets(list(consumer.assignment()))
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(READ_TIMEOUT_S):
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for some in (await consumer.getmany(timeout_ms=100)).values():
                records += some
    return records


def values_of(records: list[ConsumerRecord]) -> list[bytes | None]:
    return [record.value for record in records]
