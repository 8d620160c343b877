"""Apache Kafka 3.9.1's kafka-reassign-partitions --throttle on three kpy brokers (KIP-73)."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource

from compat.harness import BACKENDS, POLL_INTERVAL_S, unique, wait_until
from compat.java.kafka_tools import KafkaTools
from compat.replication.cluster import Cluster, cluster_in

ASSIGNMENT = [[1, 2], [1, 2]]
TARGETS = [[1, 3], [1, 3]]
TARGET = 3
PARTITION_BYTES = 4_000_000
SIZE_BYTES = len(ASSIGNMENT) * PARTITION_BYTES
RATE = 2_000_000
WINDOWS = {"replication.quota.window.num": "3600"}
"""Nothing is forgotten while the tests run, so a move without bytes to spare stands still for good."""
FETCH_BYTES = 1_048_576
"""replica.fetch.max.bytes: what a fetch may bring of a partition beyond the quota."""
MOVE_TIMEOUT_S = 60.0
FRESH_RECORDS = 20
TOPIC_THROTTLES = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")
BROKER_THROTTLES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("throttles")) as started:
        for broker_id in (1, 2, TARGET):
            started.start(broker_id, BACKENDS["kpy"], WINDOWS)
        yield started


class Move(NamedTuple):
    """A topic with records, two replicas a partition, of which one is to move to an empty broker."""

    cluster: Cluster
    topic: str
    plan: Path

    def start(self, rate: int, *options: str) -> "subprocess.Popen[str]":
        """kafka-reassign-partitions --execute, which goes on beside the test."""
        plan = ("--reassignment-json-file", str(self.plan))
        tools = KafkaTools("3.9.1", self.cluster.bootstrap)
        return tools.start("reassign-partitions", *plan, "--execute", "--throttle", str(rate), *options)

    def moved_bytes(self) -> int:
        """What is in the logs of the broker that the replicas move to."""
        data_dir = self.cluster.brokers[TARGET].data_dir
        return sum(log.stat().st_size for log in data_dir.glob(f"{self.topic}-*/*.log"))

    def is_over(self) -> bool:
        isrs = self.cluster.isrs(self.topic, asking=1)
        return isrs == {index: set(replicas) for index, replicas in enumerate(TARGETS)}


@pytest.fixture
def move(cluster: Cluster, tmp_path: Path) -> Move:
    topic = unique("throttled")
    cluster.create_topic(topic, ASSIGNMENT)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    value = bytes(10_000)
    for _ in range(PARTITION_BYTES // len(value)):
        for partition in range(len(ASSIGNMENT)):
            producer.produce(topic, value, partition=partition)
        producer.poll(0)
    assert producer.flush(60) == 0
    plan = tmp_path / "plan.json"
    partitions = [{"topic": topic, "partition": index, "replicas": each} for index, each in enumerate(TARGETS)]
    plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
    return Move(cluster, topic, plan)


def throttles(cluster: Cluster, topic: str) -> dict[str, str]:
    """The throttles that are set on the topic and on the broker that its replicas move to."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    found: dict[str, str] = {}
    for resource, names in (
        (ConfigResource("TOPIC", topic), TOPIC_THROTTLES),
        (ConfigResource("BROKER", str(TARGET)), BROKER_THROTTLES),
    ):
        entries = admin.describe_configs([resource])[resource].result(30)
        found |= {name: entries[name].value for name in names if name in entries and not entries[name].is_default}
    return found


def test_replicas_move_no_faster_than_the_throttle_and_replicas_in_sync_are_not_held_back(move: Move) -> None:
    topic = move.topic
    producer = Producer({"bootstrap.servers": move.cluster.bootstrap, "acks": "all", "linger.ms": "0"})
    with move.start(RATE) as tool:
        empty_at = time.monotonic()
        while not move.moved_bytes():
            empty_at = time.monotonic()
            assert tool.poll() in (None, 0)
            time.sleep(POLL_INTERVAL_S)
        for number in range(FRESH_RECORDS):
            producer.produce(topic, b"fresh", partition=number % len(ASSIGNMENT))
            assert producer.flush(30) == 0
        assert not move.is_over(), "records that wait for replicas in sync have waited for the move"
        wait_until(lambda: move.moved_bytes() >= SIZE_BYTES, "all records have moved", MOVE_TIMEOUT_S)
        took_s = time.monotonic() - empty_at
        # One answer may go over the quota.
        assert took_s >= (SIZE_BYTES - len(ASSIGNMENT) * FETCH_BYTES) / RATE
        assert f"The inter-broker throttle limit was set to {RATE} B/s" in tool.communicate()[0]
    wait_until(move.is_over, "the replicas have moved", MOVE_TIMEOUT_S)
    assert throttles(move.cluster, topic) == {
        **dict.fromkeys(BROKER_THROTTLES, str(RATE)),
        TOPIC_THROTTLES[0]: "0:1,0:2,1:1,1:2",
        TOPIC_THROTTLES[1]: "0:3,1:3",
    }
    tools = KafkaTools("3.9.1", move.cluster.bootstrap)
    verified = tools.run("reassign-partitions", "--reassignment-json-file", str(move.plan), "--verify")
    assert f"Clearing topic-level throttles on topic {topic}" in verified.stdout
    wait_until(lambda: not throttles(move.cluster, topic), "the throttles are gone")


def test_a_move_that_stands_still_goes_on_when_it_is_given_another_throttle(move: Move) -> None:
    with move.start(1) as slow:
        slow.communicate()
    assert slow.returncode == 0
    with move.start(1 << 30, "--additional") as fast:
        assert fast.stdout is not None
        assert fast.stdout.readline()
        assert move.moved_bytes() < SIZE_BYTES, "it has not stood still while the second tool started"
        fast.communicate()
    assert fast.returncode == 0
    wait_until(move.is_over, "the replicas have moved", MOVE_TIMEOUT_S)
