"""kafka-producer-perf-test and kafka-consumer-perf-test: not how fast records travel, but that all of them arrive."""

import pytest

from compat.harness import unique
from compat.java.kafka_tools import KafkaTools

RECORDS = 5000
RECORD_BYTES = 200


def test_what_the_producer_sends_the_consumer_counts(tools: KafkaTools) -> None:
    topic = unique("perf")
    size = ("--num-records", str(RECORDS), "--record-size", str(RECORD_BYTES), "--throughput", "-1")
    sent = tools.run("producer-perf-test", "--topic", topic, *size)
    assert sent.lines[-1].startswith(f"{RECORDS} records sent, ")

    counted = tools.run("consumer-perf-test", "--topic", topic, tools.options.consumer_perf_count, str(RECORDS))
    heading, row = ([cell.strip() for cell in line.split(",")] for line in counted.lines)
    columns = dict(zip(heading, row, strict=True))
    assert int(columns["data.consumed.in.nMsg"]) == RECORDS
    assert float(columns["data.consumed.in.MB"]) == pytest.approx(RECORDS * RECORD_BYTES / 2**20, abs=1e-4)
