"""kafka-python clients for tests: made with defaults that suit a local broker, and closed with the test."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from compat.harness import unique

READ_TIMEOUT_S = 20.0
# A shorter poll may never join a group: the client drops the answer to a join that came after the poll was over.
POLL_TIMEOUT_MS = 1000


class Clients:
    """Makes clients of one broker; leaving the context closes all of them, the last one first."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._stack = ExitStack()

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def producer(self, **settings: Any) -> KafkaProducer:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, **settings)
        self._stack.callback(producer.close, timeout=5)
        return producer

    def consumer(self, *topics: str, **settings: Any) -> KafkaConsumer:
        # A consumer may forget a topic that it is given while it asks for Metadata, until it asks for Metadata again.
        defaults = {"auto_offset_reset": "earliest", "heartbeat_interval_ms": 200, "metadata_max_age_ms": 1_000}
        settings = {**defaults, **settings}
        consumer = KafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **settings)
        self._stack.callback(consumer.close, timeout_ms=5000)
        return consumer

    def reader(self, *partitions: TopicPartition, **settings: Any) -> KafkaConsumer:
        """A consumer without a group that has these partitions."""
        consumer = self.consumer(**settings)
        consumer.assign(list(partitions))
        return consumer

    def admin(self) -> KafkaAdminClient:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        self._stack.callback(admin.close)
        return admin

    def topic(self, prefix: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic of its own for a test; it has leaders when this returns."""
        name = unique(prefix)
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as admin:
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}},
                wait_for_metadata=True,
            )
        return name


def send_all(producer: KafkaProducer, topic: str, values: list[bytes], **record: Any) -> list[Any]:
    """Send the values in order, wait for all answers, and return their metadata."""
    futures = [producer.send(topic, value, **record) for value in values]
    return [future.get(timeout=READ_TIMEOUT_S) for future in futures]


def numbered(count: int, prefix: str = "value") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


def poll_records(consumer: KafkaConsumer, timeout_ms: int = POLL_TIMEOUT_MS) -> list[ConsumerRecord]:
    return [record for records in consumer.poll(timeout_ms=timeout_ms).values() for record in records]


def read(consumer: KafkaConsumer, count: int) -> list[ConsumerRecord]:
    """Poll until `count` records have come; more than that in the last poll is returned too, for the test to see."""
    deadline = time.monotonic() + READ_TIMEOUT_S
    records: list[ConsumerRecord] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records within {READ_TIMEOUT_S} s"
        records += poll_records(consumer)
    return records


def read_to_end(consumer: KafkaConsumer) -> list[ConsumerRecord]:
    """Read every record that the assigned partitions hold now."""
    ends = consumer.end_offsets(list(consumer.assignment()))
    deadline = time.monotonic() + READ_TIMEOUT_S
    records: list[ConsumerRecord] = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        assert time.monotonic() < deadline, f"the ends {ends} were not reached within {READ_TIMEOUT_S} s"
        records += poll_records(consumer)
    return records


def values_of(records: list[ConsumerRecord]) -> list[bytes]:
    return [record.value for record in records]
