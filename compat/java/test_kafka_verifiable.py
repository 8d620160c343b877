"""Apache Kafka's verifiable producer and consumer: every acknowledged record is consumed, in order."""

from typing import Any

from compat.harness import unique
from compat.java.kafka_tools import KafkaTools

PARTITIONS = 3
RECORDS = 500


def by_partition(events: list[dict[str, Any]], name: str) -> dict[int, list[tuple[int, str, str]]]:
    """Partition -> (offset, key, value) of each event `name`, in the order the tool told them."""
    told: dict[int, list[tuple[int, str, str]]] = {partition: [] for partition in range(PARTITIONS)}
    for event in events:
        if event["name"] == name:
            told[event["partition"]].append((event["offset"], event["key"], event["value"]))
    return told


def test_every_acknowledged_record_is_consumed_in_order(tools: KafkaTools) -> None:
    topic, group = unique("verified"), unique("verifiers")
    tools.create_topic(topic, PARTITIONS)
    limit = ("--topic", topic, "--max-messages", str(RECORDS))
    produced = tools.run("verifiable-producer", *limit, "--repeating-keys", "20").events
    assert produced[-1]["name"] == "tool_data"
    assert (produced[-1]["sent"], produced[-1]["acked"]) == (RECORDS, RECORDS)
    acked = by_partition(produced, "producer_send_success")
    for records in acked.values():
        assert [offset for offset, _, _ in records] == list(range(len(records)))
        values = [int(value) for _, _, value in records]
        assert values == sorted(values)

    consumed = tools.run("verifiable-consumer", *limit, "--group-id", group, "--verbose").events
    assert by_partition(consumed, "record_data") == acked
    committed: dict[int, int] = {}
    for event in consumed:
        if event["name"] == "offsets_committed":
            assert event["success"]
            committed |= {offset["partition"]: offset["offset"] for offset in event["offsets"]}
    assert committed == {partition: len(records) for partition, records in acked.items()}
