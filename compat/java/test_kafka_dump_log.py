"""kafka-dump-log reads the files that the broker has written: segments, indexes, snapshots and committed offsets."""

import json
import re
from pathlib import Path

from compat.harness import BrokerFactory, unique
from compat.java.kafka_tools import KafkaTools

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_PER_CODEC = 600
RECORDS = RECORDS_PER_CODEC * len(CODECS)

BATCH = re.compile(
    r"baseOffset: (?P<base>\d+) lastOffset: (?P<last>\d+) count: (?P<count>\d+) .* producerId: (?P<producer>\d+) .*"
    r" position: (?P<position>\d+) .* size: (?P<size>\d+) magic: 2 compresscodec: (?P<codec>\w+) .*"
    r" isvalid: (?P<valid>\w+)"
)
INDEX_FAULTS = ("mismatch", "not found in the log", "out of order", "Non-consecutive")


def test_dump_log_reads_every_file(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    tools = KafkaTools("3.9.1", broker.bootstrap)
    producing = KafkaTools("4.3.1", broker.bootstrap)
    topic, group = unique("dumped"), unique("readers")
    small_segments = ("--config", "segment.bytes=131072", "--config", "index.interval.bytes=8192")
    tools.run("topics", "--create", "--topic", topic, "--partitions", "1", *small_segments)
    for codec in CODECS:
        size = ("--num-records", str(RECORDS_PER_CODEC), "--record-size", "500", "--throughput", "-1")
        batches = ("batch.size=8000", f"compression.type={codec}")
        producing.run("producer-perf-test", "--topic", topic, *size, "--command-property", *batches)
    limit = ("--max-messages", str(RECORDS), "--timeout-ms", "30000")
    tools.run("console-consumer", "--topic", topic, "--group", group, "--from-beginning", *limit)
    broker.stop()

    directory = broker.data_dir / f"{topic}-0"
    segments = files(directory, ".log")
    assert len(segments) > 2
    check_batches(tools.run("dump-log", "--deep-iteration", "--files", ",".join(segments)).stdout, segments)

    indexes = files(directory, ".index") + files(directory, ".timeindex")
    assert len(indexes) == 2 * len(segments)
    entries = tools.run("dump-log", "--files", ",".join(indexes)).stdout
    assert not [fault for fault in INDEX_FAULTS if fault in entries], entries
    assert len(re.findall(r"offset: \d+ position: \d+", entries)) > len(segments)
    checked = tools.run("dump-log", "--index-sanity-check", "--files", ",".join(indexes)).stdout
    assert checked.count("passed sanity check") == len(indexes)

    snapshot = tools.run("dump-log", "--files", files(directory, ".snapshot")[-1]).stdout
    last_offsets = [int(offset) for offset in re.findall(r"producerId: \d+ .*lastOffset: (\d+)", snapshot)]
    assert sorted(last_offsets) == [RECORDS_PER_CODEC * n - 1 for n in range(1, len(CODECS) + 1)]

    offsets_logs = [log for log in broker.data_dir.glob("__consumer_offsets-*/*.log") if log.stat().st_size]
    decoded = tools.run("dump-log", "--offsets-decoder", "--files", ",".join(map(str, offsets_logs))).stdout
    check_group(decoded, topic, group)


def files(directory: Path, suffix: str) -> list[str]:
    return sorted(str(path) for path in directory.glob(f"*{suffix}"))


def check_batches(dumped: str, segments: list[str]) -> None:
    """Every record is in exactly one valid batch, batches follow one another without a gap, and each codec was kept."""
    records_of: dict[str, int] = dict.fromkeys(CODECS, 0)
    next_offset = 0
    sizes: list[int] = []
    for dumped_segment in dumped.split("Dumping ")[1:]:
        next_position = 0
        for batch in BATCH.finditer(dumped_segment):
            assert int(batch["base"]) == next_offset
            assert int(batch["position"]) == next_position
            assert batch["valid"] == "true"
            next_offset = int(batch["last"]) + 1
            next_position += int(batch["size"])
            records_of[batch["codec"]] += int(batch["count"])
        sizes.append(next_position)
    assert records_of == dict.fromkeys(CODECS, RECORDS_PER_CODEC)
    assert sizes == [Path(segment).stat().st_size for segment in segments]
    record_offsets = [int(offset) for offset in re.findall(r"^\| offset: (\d+) ", dumped, re.MULTILINE)]
    assert record_offsets == list(range(RECORDS))


def check_group(decoded: str, topic: str, group: str) -> None:
    """The group's last commit is the end of the topic, and its metadata are there."""
    committed = -1
    protocols: list[str] = []
    for key_text, payload_text in re.findall(r" key: (\{.*?\}\}) payload: (\{.*\})$", decoded, re.MULTILINE):
        key, payload = json.loads(key_text), json.loads(payload_text)
        if key["type"] == "1" and key["data"] == {"group": group, "topic": topic, "partition": 0}:
            committed = payload["data"]["offset"]
        elif key["type"] == "2" and key["data"] == {"group": group}:
            protocols.append(payload["data"]["protocolType"])
    assert committed == RECORDS
    assert set(protocols) == {"consumer"}
