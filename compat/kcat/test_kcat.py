"""kcat (librdkafka) as a command: list, produce, consume with formats, query offsets, and consume as a group."""

import json
import re
import subprocess
import time
from collections.abc import Sequence

import pytest

from compat.harness import BrokerFactory, BrokerProcess, require_tool, unique

TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def kcat() -> str:
    return require_tool("kcat")


class Kcat:
    """Runs kcat against one broker; a run that fails or hangs fails the test."""

    def __init__(self, command: str, broker: BrokerProcess) -> None:
        self._command = [command, "-b", broker.bootstrap, "-X", "reconnect.backoff.ms=20", "-q"]

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        finished = self.try_run(*arguments, stdin=stdin)
        assert finished.returncode == 0, finished.stderr.decode(errors="replace")
        return finished.stdout

    def try_run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
        )

    def produce(self, topic: str, lines: Sequence[str], *arguments: str) -> None:
        self.run("-P", "-t", topic, *arguments, stdin="".join(line + "\n" for line in lines).encode())

    def consume(self, topic: str, *arguments: str) -> list[str]:
        """Every record from the beginning to the end, one line each."""
        return self.run("-C", "-t", topic, "-o", "beginning", "-e", *arguments).decode().splitlines()

    def metadata(self, *arguments: str) -> dict[str, object]:
        described: dict[str, object] = json.loads(self.run("-L", "-J", *arguments))
        return described


@pytest.fixture
def tool(kcat: str, broker: BrokerProcess) -> Kcat:
    return Kcat(kcat, broker)


def lines_of(count: int, prefix: str = "line") -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


def test_metadata_lists_the_broker_and_its_topics(tool: Kcat, broker: BrokerProcess) -> None:
    topic = unique("listed")
    tool.produce(topic, ["first"])

    metadata = tool.metadata()

    (node,) = metadata["brokers"]
    assert node["name"] == broker.bootstrap
    assert metadata["controllerid"] == node["id"]
    (described,) = [entry for entry in metadata["topics"] if entry["topic"] == topic]
    assert described["partitions"] == [
        {"partition": 0, "leader": node["id"], "replicas": [{"id": node["id"]}], "isrs": [{"id": node["id"]}]}
    ]


def test_metadata_as_text(tool: Kcat, broker: BrokerProcess) -> None:
    topic = unique("text")
    tool.produce(topic, ["first"])

    text = tool.run("-L", "-t", topic).decode()

    assert f"at {broker.bootstrap}" in text
    assert f'topic "{topic}" with 1 partitions' in text
    assert re.search(r"partition 0, leader \d+, replicas: \d+, isrs: \d+", text)


def test_lines_come_back_in_order(tool: Kcat) -> None:
    topic = unique("lines")

    tool.produce(topic, lines_of(1000))

    assert tool.consume(topic) == lines_of(1000)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_each_codec_is_read_back(tool: Kcat, codec: str) -> None:
    topic = unique(f"codec-{codec}")

    tool.produce(topic, lines_of(500), "-z", codec, "-X", "linger.ms=50")

    assert tool.consume(topic) == lines_of(500)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_each_kind_of_acknowledgement(tool: Kcat, acks: str) -> None:
    topic = unique("acks")
    tool.produce(topic, lines_of(10, "before"))

    tool.produce(topic, lines_of(10, "after"), "-X", f"acks={acks}")

    expected = lines_of(10, "before") + lines_of(10, "after")
    # Nothing tells when a record without acknowledgement has arrived.
    deadline = time.monotonic() + TIMEOUT_S
    while (received := tool.consume(topic)) != expected and time.monotonic() < deadline:
        pass
    assert received == expected


def test_an_idempotent_producer(tool: Kcat) -> None:
    topic = unique("idempotent")

    tool.produce(topic, lines_of(2000), "-X", "enable.idempotence=true", "-X", "batch.num.messages=10")

    assert tool.consume(topic) == lines_of(2000)


def test_formats_show_every_part_of_a_record(tool: Kcat) -> None:
    topic = unique("format")
    before_ms = int(time.time() * 1000)
    tool.produce(topic, ["key1:value one", "key2:"], "-K", ":", "-H", "trace=abc", "-H", "other=1", "-p", "0")

    first, second = tool.consume(topic, "-f", "%t|%p|%o|%K|%k|%S|%s|%h|%T\n")

    *parts, timestamp = first.split("|")
    assert parts == [topic, "0", "0", "4", "key1", "9", "value one", "trace=abc,other=1"]
    assert before_ms <= int(timestamp) <= int(time.time() * 1000)
    assert second.split("|")[:8] == [topic, "0", "1", "4", "key2", "0", "", "trace=abc,other=1"]


def test_null_values_are_told_from_empty_ones(tool: Kcat) -> None:
    topic = unique("null")
    tool.produce(topic, ["key:"], "-K", ":", "-Z")

    (line,) = tool.consume(topic, "-J")

    record = json.loads(line)
    assert (record["key"], record["payload"]) == ("key", None)


def test_records_as_json(tool: Kcat) -> None:
    topic = unique("json")
    tool.produce(topic, ["k:größe"], "-K", ":", "-H", "h=v")

    (line,) = tool.consume(topic, "-J")

    record = json.loads(line)
    assert (record["topic"], record["partition"], record["offset"]) == (topic, 0, 0)
    assert (record["key"], record["payload"], record["headers"]) == ("k", "größe", ["h", "v"])
    assert record["tstype"] == "create"


def test_the_start_may_be_an_offset_or_counted_from_the_end(tool: Kcat) -> None:
    topic = unique("start")
    tool.produce(topic, lines_of(20))

    assert tool.run("-C", "-t", topic, "-o", "15", "-e").decode().splitlines() == lines_of(20)[15:]
    assert tool.run("-C", "-t", topic, "-o", "-3", "-e").decode().splitlines() == lines_of(20)[17:]
    assert tool.run("-C", "-t", topic, "-o", "end", "-e") == b""
    assert tool.run("-C", "-t", topic, "-o", "beginning", "-c", "4").decode().splitlines() == lines_of(4)


def test_offsets_are_queried_by_time(tool: Kcat) -> None:
    topic = unique("query")
    tool.produce(topic, lines_of(5))
    timestamps = [int(timestamp) for timestamp in tool.consume(topic, "-f", "%T\n")]

    def query(timestamp: int) -> str:
        return tool.run("-Q", "-t", f"{topic}:0:{timestamp}").decode().strip()

    assert query(-2) == f"{topic} [0] offset 0"
    assert query(-1) == f"{topic} [0] offset 5"
    assert query(timestamps[0]) == f"{topic} [0] offset 0"
    assert query(timestamps[-1] + 1_000_000) == f"{topic} [0] offset -1"


def test_consuming_between_two_times(tool: Kcat) -> None:
    topic = unique("between")
    tool.produce(topic, lines_of(3))
    first_ms = int(tool.consume(topic, "-f", "%T\n")[0])

    assert tool.run("-C", "-t", topic, "-o", f"s@{first_ms}", "-e").decode().splitlines() == lines_of(3)
    assert tool.run("-C", "-t", topic, "-o", f"s@{first_ms + 3_600_000}", "-e") == b""


def test_the_same_key_always_goes_to_the_same_partition(kcat: str, fresh_broker: BrokerFactory) -> None:
    tool = Kcat(kcat, fresh_broker({"num.partitions": "5"}))
    topic = unique("keys")
    tool.produce(topic, ["warm:up"], "-K", ":")
    tool.produce(topic, [f"key{number % 10}:{number}" for number in range(200)], "-K", ":")

    partition_of: dict[str, set[str]] = {}
    values_of: dict[str, list[int]] = {}
    for line in tool.consume(topic, "-f", "%p %k %s\n"):
        partition, key, value = line.split()
        if key != "warm":
            partition_of.setdefault(key, set()).add(partition)
            values_of.setdefault(key, []).append(int(value))

    assert {len(partitions) for partitions in partition_of.values()} == {1}
    assert values_of == {f"key{key}": list(range(key, 200, 10)) for key in range(10)}


def test_a_group_commits_and_resumes(tool: Kcat) -> None:
    topic = unique("grouped")
    group = unique("group")
    tool.produce(topic, lines_of(10, "first"))

    def consume_as_group() -> list[str]:
        out = tool.run("-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=200", "-e", "-G", group, topic)
        return out.decode().splitlines()

    assert consume_as_group() == lines_of(10, "first")
    tool.produce(topic, lines_of(10, "second"))
    assert consume_as_group() == lines_of(10, "second")
    assert consume_as_group() == []


def test_an_unknown_topic_is_reported(kcat: str, fresh_broker: BrokerFactory) -> None:
    tool = Kcat(kcat, fresh_broker({"auto.create.topics.enable": "false"}))
    topic = unique("missing")

    metadata = tool.metadata("-t", topic)
    assert [entry["error"] for entry in metadata["topics"]] == ["Broker: Unknown topic or partition"]
    produced = tool.try_run("-P", "-t", topic, "-X", "message.timeout.ms=2000", stdin=b"lost\n")
    assert produced.returncode != 0


def test_a_file_larger_than_the_limit_is_refused(tool: Kcat) -> None:
    topic = unique("large")
    tool.produce(topic, ["x" * 900_000])

    refused = tool.try_run("-P", "-t", topic, "-X", "message.max.bytes=4000000", stdin=b"y" * 1_500_000 + b"\n")

    assert refused.returncode != 0
    assert [len(line) for line in tool.consume(topic)] == [900_000]
