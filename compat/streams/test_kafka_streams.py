"""Kafka Streams counts words: repartition and changelog topics, tasks that move, state that comes back, true counts."""

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from compat.harness import BrokerProcess, unique, wait_until
from compat.java.kafka_tools import KafkaTools, java_of, leaving_classes

HERE = Path(__file__).parent
PARTITIONS = 3
PATIENCE_S = 120.0
WORDS = [f"word{number}" for number in range(20)]
GUARANTEES = ["at_least_once", "exactly_once_v2"]


@contextmanager
def application(version: str, broker: BrokerProcess, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running Application.java; it is closed in good order at the end, unless it was killed before."""
    pom = HERE / f"kafka-streams-{version}.xml"
    with (
        leaving_classes(pom, java_of(pom, str(HERE / "Application.java"), broker.bootstrap, *arguments)) as command,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as application,
    ):
        try:
            yield application
        finally:
            if application.poll() is None:
                application.communicate(timeout=PATIENCE_S)


def produce(broker: BrokerProcess, topic: str, lines: list[str]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number, line in enumerate(lines):
        producer.produce(topic, line.encode(), partition=number % PARTITIONS)
    assert producer.flush(30) == 0


class Counts:
    """The newest count of each word in the output topic."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        self.newest: dict[str, int] = {}
        self.went_back = False
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": unique("counts"),
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.subscribe([topic])

    def are(self, expected: Counter[str]) -> bool:
        for message in self._consumer.consume(500, 0.5):
            assert message.error() is None, message.error()
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            word, count = key.decode(), int(value)
            self.went_back |= count < self.newest.get(word, 0)
            self.newest[word] = count
        return self.newest == expected

    def close(self) -> None:
        self._consumer.close()


def some_lines(seed: int) -> tuple[list[str], Counter[str]]:
    chance = random.Random(seed)
    lines = [" ".join(chance.choices(WORDS, k=8)) for _ in range(300)]
    return lines, Counter(word for line in lines for word in line.split())


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("version", ["3.9.1", "4.3.1"])
def test_words_are_counted_by_one_application_and_then_by_two(
    version: str, guarantee: str, broker: BrokerProcess, tmp_path: Path
) -> None:
    tools = KafkaTools("3.9.1", broker.bootstrap)
    source, target, application_id = unique("lines"), unique("counts"), unique("wordcount")
    tools.create_topic(source, PARTITIONS)
    tools.create_topic(target, PARTITIONS)
    part = f"count:{source}:{target}"
    first_lines, expected = some_lines(1)
    produce(broker, source, first_lines)
    counts = Counts(broker, target)
    with application(version, broker, application_id, guarantee, str(tmp_path / "one"), "-", part):
        wait_until(lambda: counts.are(expected), "the first lines are counted", PATIENCE_S)
        with application(version, broker, application_id, guarantee, str(tmp_path / "two"), "-", part):
            more_lines, more = some_lines(2)
            produce(broker, source, more_lines)
            expected += more
            wait_until(lambda: counts.are(expected), "two applications count on", PATIENCE_S)
    # With its state directory gone, the counts come back from the changelog.
    with application(version, broker, application_id, guarantee, str(tmp_path / "three"), "-", part):
        last_lines, last = some_lines(3)
        produce(broker, source, last_lines)
        expected += last
        wait_until(lambda: counts.are(expected), "a third one goes on from the changelog", PATIENCE_S)
    counts.close()
    assert not counts.went_back
