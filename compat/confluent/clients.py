"""confluent-kafka (librdkafka) clients for tests: made with settings that suit a local broker, closed with the test."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import unique, wait_until

READ_TIMEOUT_S = 20.0


class Clients:
    """Makes clients of one broker; leaving the context closes all of them, the last one first."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._stack = ExitStack()

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        defaults = {
            "bootstrap.servers": self.bootstrap,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "log_level": 2,
        }
        return {**defaults, **settings}

    def producer(self, settings: Mapping[str, Any] | None = None) -> Producer:
        producer = Producer(self._settings(settings or {}))
        self._stack.callback(producer.flush, 5)
        return producer

    def transactional_producer(self, settings: Mapping[str, Any]) -> Producer:
        """Ends with what it has left open, as one that is fenced or dies does: nothing is flushed."""
        return Producer(self._settings(settings))

    def consumer(self, settings: Mapping[str, Any] | None = None) -> Consumer:
        defaults = {
            "group.id": unique("group"),
            "auto.offset.reset": "earliest",
            "heartbeat.interval.ms": 200,
            "topic.metadata.refresh.interval.ms": 500,
            "fetch.wait.max.ms": 100,
        }
        consumer = Consumer(self._settings({**defaults, **(settings or {})}))
        self._stack.callback(consumer.close)
        return consumer

    def reader(self, *partitions: TopicPartition, settings: Mapping[str, Any] | None = None) -> Consumer:
        """A consumer that has these partitions, outside any group, and reports their ends."""
        consumer = self.consumer({"enable.partition.eof": True, "enable.auto.commit": False, **(settings or {})})
        consumer.assign(list(partitions))
        return consumer

    def admin(self) -> AdminClient:
        # Kept until the end: an admin client that is collected gives up its calls.
        admin = AdminClient(self._settings({}))
        self._stack.callback(admin.poll, 0)
        return admin

    def topic(self, prefix: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Create a topic of its own for a test."""
        name = unique(prefix)
        create_topic(self.admin(), name, partitions, configs)
        return name


def create_topic(admin: AdminClient, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> None:
    """Create a topic and wait until all of its partitions have a leader."""
    admin.create_topics([NewTopic(name, partitions, 1, config=dict(configs or {}))])[name].result(10)

    def has_leaders() -> bool:
        topic = admin.list_topics(name, timeout=10).topics[name]
        return len(topic.partitions) == partitions and all(part.leader >= 0 for part in topic.partitions.values())

    wait_until(has_leaders, f"the leaders of {name}")


def numbered(count: int, prefix: str = "value") -> list[bytes]:
    return [f"{prefix}-{number}".encode() for number in range(count)]


def send_all(producer: Producer, topic: str, values: list[bytes], **record: Any) -> list[Message]:
    """Produce the values in order and return their delivery reports, in the order they came."""
    reports: list[Message] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        reports.append(message)

    for value in values:
        while True:
            try:
                producer.produce(topic, value, on_delivery=on_delivery, **record)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(READ_TIMEOUT_S) == 0
    assert len(reports) == len(values)
    return reports


def delivery_error(producer: Producer, topic: str, value: bytes, **record: Any) -> KafkaError | None:
    """The error in the delivery report of one record."""
    errors: list[KafkaError | None] = []
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error), **record)
    assert producer.flush(READ_TIMEOUT_S) == 0
    return errors[0]


def checked(message: Message) -> Message:
    assert message.error() is None, message.error()
    return message


def read(consumer: Consumer, count: int) -> list[Message]:
    """Poll until `count` records have come."""
    deadline = time.monotonic() + READ_TIMEOUT_S
    messages: list[Message] = []
    while len(messages) < count:
        assert time.monotonic() < deadline, f"only {len(messages)} of {count} records within {READ_TIMEOUT_S} s"
        message = consumer.poll(0.2)
        if message is not None and not _is_end(message):
            messages.append(checked(message))
    return messages


def read_to_end(consumer: Consumer) -> list[Message]:
    """Read until every assigned partition has reported its end: needs enable.partition.eof."""
    waiting = {(partition.topic, partition.partition) for partition in consumer.assignment()}
    deadline = time.monotonic() + READ_TIMEOUT_S
    messages: list[Message] = []
    while waiting:
        assert time.monotonic() < deadline, f"the ends of {waiting} were not reached within {READ_TIMEOUT_S} s"
        message = consumer.poll(0.2)
        if message is None:
            continue
        if _is_end(message):
            waiting.discard((message.topic(), message.partition()))
        else:
            messages.append(checked(message))
    return messages


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def values_of(messages: list[Message]) -> list[bytes | None]:
    return [message.value() for message in messages]


def offsets_and_values(messages: list[Message]) -> list[tuple[int | None, bytes | None]]:
    return [(message.offset(), message.value()) for message in messages]
