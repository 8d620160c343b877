"""kafka-get-offsets: the ends of a log, and the offset of a time."""

import pytest

from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import KafkaTools

# Written to one partition, in this order: (create time of the first in ms, number of records). The newest is not last.
WRITTEN = ((1_500_000_000_000, 5), (1_700_000_000_000, 1), (1_600_000_000_000, 4))


@pytest.fixture(scope="module")
def topic(broker: BrokerProcess) -> str:
    tools = KafkaTools("3.9.1", broker.bootstrap)
    topic = unique("timed")
    # Without a limit: the records are years old, and would be deleted as soon as anyone looked.
    tools.run("topics", "--create", "--topic", topic, "--partitions", "1", "--config", "retention.ms=-1")
    for create_time_ms, count in WRITTEN:
        times = ("--message-create-time", str(create_time_ms), "--max-messages", str(count))
        tools.run("verifiable-producer", "--topic", topic, *times)
    return topic


@pytest.mark.parametrize(
    ("time", "offset"),
    [("-1", 10), ("-2", 0), ("1400000000000", 0), ("1550000000000", 5), ("1650000000000", 5)],
    ids=["latest", "earliest", "before-all", "between", "between-the-newest"],
)
def test_offset_of_a_time_is_found(tools: KafkaTools, topic: str, time: str, offset: int) -> None:
    assert tools.run("get-offsets", "--topic", topic, "--time", time).lines == [f"{topic}:0:{offset}"]


def test_time_after_all_records_has_no_offset(tools: KafkaTools, topic: str) -> None:
    expected = [f"{topic}:0:"] if tools.version == "2.8.2" else []
    assert tools.run("get-offsets", "--topic", topic, "--time", "1750000000000").lines == expected


@pytest.mark.parametrize("version", ["3.9.1", "4.3.1"])
def test_offset_of_the_newest_time_is_found(broker: BrokerProcess, topic: str, version: str) -> None:
    """KIP-734, which 2.8's tool does not know."""
    tools = KafkaTools(version, broker.bootstrap)
    assert tools.run("get-offsets", "--topic", topic, "--time", "-3").lines == [f"{topic}:0:5"]
