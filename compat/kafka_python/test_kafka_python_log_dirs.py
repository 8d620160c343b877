"""kafka-python's admin client with several data directories: logs are described and moved, records are deleted."""

from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import LogDirNotFoundError, NoError, OffsetOutOfRangeError, PolicyViolationError

from compat.harness import BrokerFactory, wait_until
from compat.kafka_python.clients import Clients, numbered, read_to_end, send_all, values_of

RECORDS = 300


def places(admin: KafkaAdminClient, topic: str) -> list[tuple[str, bool]]:
    """(directory, future) of partition 0's log and of its copy."""
    return [
        (directory["log_dir"], partition["is_future_key"])
        for broker in admin.describe_log_dirs()
        for directory in broker["log_dirs"]
        for described in directory["topics"]
        if described["name"] == topic
        for partition in described["partitions"]
    ]


def produce(clients: Clients, topic: str) -> list[bytes]:
    values = [value + b"x" * 1000 for value in numbered(RECORDS)]
    send_all(clients.producer(), topic, values, partition=0)
    return values


def test_a_log_moves_to_another_directory_and_reads_as_before(fresh_broker: BrokerFactory, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    broker = fresh_broker({"log.dirs": f"{first},{second}", "broker.id": "1"})
    with Clients(broker.bootstrap) as clients:
        move_and_read(clients, first, second)


def move_and_read(clients: Clients, first: Path, second: Path) -> None:
    admin = clients.admin()
    topic = clients.topic("moved")
    values = produce(clients, topic)
    ((source, _),) = places(admin, topic)
    target = str(second if source == str(first) else first)

    answer = admin.alter_replica_log_dirs({(topic, 0, 1): target})

    assert list(answer.values()) == [NoError]
    wait_until(lambda: places(admin, topic) == [(target, False)], "the log has moved")
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == values
    refused = admin.alter_replica_log_dirs({(topic, 0, 1): "/nowhere"})
    assert list(refused.values()) == [LogDirNotFoundError]


def test_records_are_deleted_up_to_an_offset(clients: Clients) -> None:
    admin = clients.admin()
    topic, compacted = clients.topic("deleted"), clients.topic("compacted", configs={"cleanup.policy": "compact"})
    produce(clients, topic)
    partition = TopicPartition(topic, 0)

    answer = admin.delete_records({partition: 120})

    assert answer[partition]["low_watermark"] == 120
    reader = clients.reader(partition)
    assert reader.beginning_offsets([partition]) == {partition: 120}
    assert [record.offset for record in read_to_end(reader)] == list(range(120, RECORDS))
    with pytest.raises(OffsetOutOfRangeError):
        admin.delete_records({partition: RECORDS + 1})
    with pytest.raises(PolicyViolationError):
        admin.delete_records({TopicPartition(compacted, 0): 0})
    assert admin.delete_records({partition: -1})[partition]["low_watermark"] == RECORDS
