"""kafka-log-dirs and kafka-delete-records: what lies where, and the start of a log that is moved up."""

import json
from pathlib import Path
from typing import Any

from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import KafkaTools

RECORDS = 40


def filled_topic(tools: KafkaTools, partitions: int) -> str:
    topic = unique("log-dirs")
    tools.create_topic(topic, partitions)
    tools.run("verifiable-producer", "--topic", topic, "--max-messages", str(RECORDS))
    return topic


def described(tools: KafkaTools, topic: str) -> list[Any]:
    """The log directories of the one broker."""
    output = tools.run("log-dirs", "--describe", "--topic-list", topic)
    (line,) = (line for line in output.lines if line.startswith("{"))
    (broker,) = json.loads(line)["brokers"]
    return broker["logDirs"]


def test_log_dirs_describes_every_partition_with_its_size(tools: KafkaTools, broker: BrokerProcess) -> None:
    topic = filled_topic(tools, 2)
    (directory,) = described(tools, topic)
    assert (directory["logDir"], directory["error"]) == (str(broker.data_dir), None)
    partitions = {each["partition"]: each for each in directory["partitions"]}
    assert partitions.keys() == {f"{topic}-0", f"{topic}-1"}
    for name, partition in partitions.items():
        size = sum(path.stat().st_size for path in (broker.data_dir / name).glob("*.log"))
        assert (partition["size"], partition["offsetLag"], partition["isFuture"]) == (size, 0, False)


def test_delete_records_moves_the_start_of_the_log(tools: KafkaTools, tmp_path: Path) -> None:
    topic = filled_topic(tools, 1)
    wanted = tmp_path / "offsets.json"
    for offset, low_watermark in ((15, 15), (-1, RECORDS)):
        partitions = [{"topic": topic, "partition": 0, "offset": offset}]
        wanted.write_text(json.dumps({"version": 1, "partitions": partitions}))
        output = tools.run("delete-records", "--offset-json-file", str(wanted)).stdout
        assert f"partition: {topic}-0\tlow_watermark: {low_watermark}" in output
        assert tools.run("get-offsets", "--topic", topic, "--time", "-2").lines == [f"{topic}:0:{low_watermark}"]
