"""Data that Apache Kafka 3.9.1 wrote: kpy finds nothing wrong with it, and shows what kafka-dump-log shows."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compat.differential.apache_kafka import VERSION, running_apache_kafka
from compat.java.kafka_tools import KafkaTools

TOPIC = "dumped"
RECORDS_PER_CODEC = 300
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
STOP_TIMEOUT_S = 60.0
SETTINGS = {
    "broker.id": "1",
    "offsets.topic.num.partitions": "1",
    "log.segment.bytes": "65536",
    "log.index.interval.bytes": "1024",
    "controlled.shutdown.enable": "false",
}
FIELDS = {
    "baseOffset": "base_offset",
    "lastOffset": "last_offset",
    "count": "count",
    "baseSequence": "base_sequence",
    "lastSequence": "last_sequence",
    "producerId": "producer_id",
    "producerEpoch": "producer_epoch",
    "partitionLeaderEpoch": "leader_epoch",
    "isTransactional": "is_transactional",
    "isControl": "is_control",
    "position": "position",
    "CreateTime": "max_timestamp",
    "size": "size_bytes",
    "magic": "magic",
    "compresscodec": "codec",
    "crc": "crc",
    "isvalid": "is_valid",
}
"""What kafka-dump-log prints of a batch, and what kpy calls it."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cleanly closed: every codec, idempotent producers, several segments, a group's commits."""
    work_dir = tmp_path_factory.mktemp("apache") / "kafka"
    with running_apache_kafka(work_dir, SETTINGS) as broker:
        tools = KafkaTools(VERSION, broker.bootstrap)
        tools.create_topic(TOPIC, 1)
        for codec in CODECS:
            size = ("--num-records", str(RECORDS_PER_CODEC), "--record-size", "400", "--throughput", "-1")
            config = work_dir / f"{codec}.properties"
            config.write_text(f"batch.size=4000\ncompression.type={codec}\n")
            tools.run("producer-perf-test", "--topic", TOPIC, *size, "--producer.config", str(config))
        limit = ("--max-messages", str(RECORDS_PER_CODEC), "--timeout-ms", "30000")
        tools.run("console-consumer", "--topic", TOPIC, "--group", "readers", "--from-beginning", *limit)
        broker.stop()
        return broker.data_dir


def kpy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kpy", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_check_data_finds_nothing_wrong(data_dir: Path) -> None:
    checked = kpy("check-data", "--json", str(data_dir))
    *findings, summary = (json.loads(line) for line in checked.stdout.splitlines())
    assert [each for each in findings if each["severity"] != "note"] == []
    assert checked.returncode == 0, checked.stderr
    assert summary["partitions"] == 2
    assert summary["records"] >= RECORDS_PER_CODEC * len(CODECS)


def test_dump_log_verifies_every_partition(data_dir: Path) -> None:
    partitions = sorted(str(path.parent) for path in data_dir.glob("*/partition.metadata"))
    verified = kpy("dump-log", "--verify", *partitions)
    assert verified.stdout.splitlines() == [f"{path}: sound" for path in partitions]
    assert verified.returncode == 0


def test_both_dump_logs_agree(data_dir: Path) -> None:
    segments = sorted(str(path) for path in data_dir.glob(f"{TOPIC}-0/*.log"))
    assert len(segments) > 2
    theirs = KafkaTools(VERSION, "").run("dump-log", "--files", ",".join(segments)).stdout
    ours = [json.loads(line) for line in kpy("dump-log", "--json", *segments).stdout.splitlines()]
    batches = [
        dict(re.findall(r"(\w+): (\S+)", line)) for line in theirs.splitlines() if line.startswith("baseOffset: ")
    ]
    assert len(batches) > len(segments)
    assert [as_kafka_prints(batch) for batch in ours] == [{name: batch[name] for name in FIELDS} for batch in batches]
    assert {batch["codec"] for batch in ours} == set(CODECS)


def as_kafka_prints(batch: dict[str, Any]) -> dict[str, str]:
    texts = {theirs: str(batch[ours]) for theirs, ours in FIELDS.items()}
    return {name: text.lower() if text in ("True", "False") else text for name, text in texts.items()}


def test_both_dump_logs_show_the_same_entries_of_indexes(data_dir: Path) -> None:
    indexes = sorted(str(path) for path in data_dir.glob(f"{TOPIC}-0/*.index"))
    theirs = KafkaTools(VERSION, "").run("dump-log", "--files", ",".join(indexes)).stdout
    ours = [json.loads(line) for line in kpy("dump-log", "--json", *indexes).stdout.splitlines()]
    shown = re.findall(r"^offset: (\d+) position: (\d+)$", theirs, re.MULTILINE)
    assert len(shown) > len(indexes)
    # An empty index has no entry, which kafka-dump-log shows as one of zeros.
    assert [(str(each["offset"]), str(each["position"])) for each in ours] == [each for each in shown if each[1] != "0"]
