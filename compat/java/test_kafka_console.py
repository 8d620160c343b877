"""kafka-console-producer and kafka-console-consumer: what one version writes, every version reads."""

import re
from typing import NamedTuple

import pytest

from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import VERSIONS, KafkaTools, Output

CODECS = {"2.8.2": "snappy", "3.9.1": "lz4", "4.3.1": "zstd"}
RECORDS = 40
# A record far longer than a batch's default 16 KiB, and one that is not ASCII.
VALUES = [f"value {number}" for number in range(RECORDS - 2)] + ["long " * 8000, "größer ≠ 大きい 🜁"]
PRINT_ALL = ("timestamp", "partition", "offset", "headers", "key")


class Message(NamedTuple):
    """One line of a console consumer that prints all there is."""

    partition: int
    offset: int
    headers: str
    key: str
    value: str


def messages(output: Output) -> list[Message]:
    read: list[Message] = []
    for line in output.stdout.split("\n")[:-1]:
        timestamp, partition, offset, headers, key, value = line.split("\t")
        assert re.fullmatch(r"CreateTime:\d{13}", timestamp), line
        read.append(Message(int(partition[len("Partition:") :]), int(offset[len("Offset:") :]), headers, key, value))
    return read


def consume(tools: KafkaTools, *arguments: str) -> list[Message]:
    """Run a console consumer that ends after `--max-messages`, or with a failed comparison after 30 s of silence."""
    printing = [part for what in PRINT_ALL for part in (tools.options.formatter_property, f"print.{what}=true")]
    return messages(tools.run("console-consumer", "--timeout-ms", "30000", *arguments, *printing))


def keyed(number: int) -> str:
    return f"key {number % 7}"


class Written(NamedTuple):
    """One topic for each producer version, all with `prefix`; topic -> what is in its only partition."""

    prefix: str
    topics: dict[str, list[Message]]

    def of(self, version: str) -> tuple[str, list[Message]]:
        topic = f"{self.prefix}-{version}"
        return topic, self.topics[topic]


@pytest.fixture(scope="module")
def written(broker: BrokerProcess) -> Written:
    """Topics that the first record creates; 2.8's producer has no headers to give."""
    prefix = unique("written")
    topics: dict[str, list[Message]] = {}
    for version in VERSIONS:
        tools = KafkaTools(version, broker.bootstrap)
        headers = version != "2.8.2"
        topic = f"{prefix}-{version}"
        expected: list[Message] = []
        lines: list[str] = []
        for number, text in enumerate(VALUES):
            value = f"{version}: {text}"
            header = f"from:{version},n:{number}" if headers else "NO_HEADERS"
            expected.append(Message(0, number, header, keyed(number), value))
            lines.append("|".join([header, keyed(number), value] if headers else [keyed(number), value]))
        properties = [
            "parse.key=true",
            "key.separator=|",
            f"parse.headers={str(headers).lower()}",
            "headers.delimiter=|",
        ]
        tools.run(
            "console-producer",
            *("--topic", topic, "--compression-codec", CODECS[version]),
            *(part for one in properties for part in (tools.options.reader_property, one)),
            stdin="\n".join(lines) + "\n",
        )
        topics[topic] = expected
    return Written(prefix, topics)


def test_group_of_any_version_reads_every_topic_once_and_in_order(tools: KafkaTools, written: Written) -> None:
    subscribed = (tools.options.topic_pattern, f"{written.prefix}-.*", "--group", unique("readers"), "--from-beginning")
    total = RECORDS * len(VERSIONS)
    first = consume(tools, *subscribed, "--max-messages", "50")
    assert len(first) == 50
    # The group goes on where its first member stopped.
    read = first + consume(tools, *subscribed, "--max-messages", str(total - 50))
    for version in VERSIONS:
        _, expected = written.of(version)
        assert [message for message in read if message.value.startswith(version)] == expected
    assert len(read) == total


def test_partition_can_be_read_from_an_offset(tools: KafkaTools, written: Written) -> None:
    for version in VERSIONS:
        topic, expected = written.of(version)
        place = ("--topic", topic, "--partition", "0", "--offset", "33", "--isolation-level", "read_committed")
        assert consume(tools, *place, "--max-messages", "7") == expected[33:]


def test_tombstones_and_empty_values_stay_apart(broker: BrokerProcess) -> None:
    """Null markers came with 3.2, so 2.8 takes no part."""
    tools = KafkaTools("3.9.1", broker.bootstrap)
    topic = unique("tombstones")
    properties = ["parse.key=true", "key.separator=|", "null.marker=NULL"]
    tools.run(
        "console-producer",
        *("--topic", topic, "--request-required-acks", "1"),
        *(part for one in properties for part in (tools.options.reader_property, one)),
        stdin="a|1\na|NULL\nb|\nNULL|keyless\n",
    )
    null_literal = (tools.options.formatter_property, "null.literal=<null>")
    read = consume(tools, "--topic", topic, "--from-beginning", "--max-messages", "4", *null_literal)
    assert [(message.key, message.value) for message in read] == [
        ("a", "1"),
        ("a", "<null>"),
        ("b", ""),
        ("<null>", "keyless"),
    ]
