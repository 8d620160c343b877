"""kafka-consumer-groups: every way to reset offsets, several groups at once, and members in detail; static members."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from compat.harness import BrokerProcess, unique, wait_until
from compat.java.kafka_tools import KafkaTools

PARTITIONS = 2
RECORDS_A_PARTITION = 10
PATIENCE_S = 90.0


def produce(broker: BrokerProcess, topic: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(PARTITIONS * RECORDS_A_PARTITION):
        producer.produce(topic, str(number).encode(), partition=number % PARTITIONS)
    assert producer.flush(30) == 0


def commit(broker: BrokerProcess, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    places = [TopicPartition(topic, index, offset) for index in range(PARTITIONS)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


class Resets:
    """A group without members, and what its offsets are reset to."""

    def __init__(self, tools: KafkaTools, group: str) -> None:
        self._tools = tools
        self._group = group

    def to(self, *where: str, execute: bool = True) -> dict[int, int]:
        action = "--execute" if execute else "--dry-run"
        output = self._tools.run("consumer-groups", "--reset-offsets", "--group", self._group, *where, action)
        return {int(row[2]): int(row[3]) for row in output.table("GROUP", "TOPIC", "PARTITION", "NEW-OFFSET")}


def test_every_way_to_reset_offsets(tools: KafkaTools, broker: BrokerProcess, tmp_path: Path) -> None:
    topic, group = unique("orders"), unique("readers")
    tools.create_topic(topic, PARTITIONS)
    produce(broker, topic)
    commit(broker, group, topic, 4)
    resets = Resets(tools, group)
    of_topic = ("--topic", topic)
    both = dict.fromkeys(range(PARTITIONS), 4)
    assert resets.to(*of_topic, "--to-current") == both
    assert resets.to("--all-topics", "--shift-by", "3") == dict.fromkeys(both, 7)
    # Beyond the ends of the log the tool stops at the ends.
    assert resets.to(*of_topic, "--shift-by", "-100") == dict.fromkeys(both, 0)
    assert resets.to(*of_topic, "--to-offset", "100") == dict.fromkeys(both, RECORDS_A_PARTITION)
    assert resets.to(*of_topic, "--by-duration", "PT1H") == dict.fromkeys(both, 0)
    assert resets.to(*of_topic, "--to-latest", execute=False) == dict.fromkeys(both, RECORDS_A_PARTITION)
    assert resets.to(*of_topic, "--to-datetime", "2000-01-01T00:00:00.000") == dict.fromkeys(both, 0)
    plan = tmp_path / "plan.csv"
    plan.write_text(f"{topic},0,2\n{topic},1,6\n")
    assert resets.to("--from-file", str(plan)) == {0: 2, 1: 6}
    exported = tools.run(
        "consumer-groups", "--reset-offsets", "--group", group, *of_topic, "--to-current", "--export", "--dry-run"
    )
    rows = [line.replace('"', "") for line in exported.lines if topic in line]
    assert sorted(rows) == [f"{topic},0,2", f"{topic},1,6"]


def test_several_groups_are_described_and_deleted_at_once(tools: KafkaTools, broker: BrokerProcess) -> None:
    topic, groups = unique("orders"), [unique("readers"), unique("writers")]
    tools.create_topic(topic, PARTITIONS)
    produce(broker, topic)
    for group in groups:
        commit(broker, group, topic, 1)
    named = [word for group in groups for word in ("--group", group)]
    offsets = tools.run("consumer-groups", "--describe", *named, "--offsets").stdout
    states = tools.run("consumer-groups", "--describe", *named, "--state").stdout
    for group in groups:
        assert [line.split()[3:6] for line in offsets.splitlines() if line.startswith(group)] == [["1", "10", "9"]] * 2
        assert any("Empty" in line for line in states.splitlines() if line.startswith(group))
    tools.run("consumer-groups", "--delete", *named)
    assert not set(groups) & set(tools.run("consumer-groups", "--list").lines)


@contextmanager
def member(tools: KafkaTools, log: Path, group: str, topic: str, instance_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """A verifiable consumer, which writes what happens to it into `log`. It is killed at the end."""
    strategy = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
    arguments = ["--group-id", group, "--topic", topic, "--session-timeout", "45000"]
    arguments += ["--group-instance-id", instance_id, "--assignment-strategy", strategy]
    with (
        log.open("ab") as file,
        subprocess.Popen(tools.command("verifiable-consumer", arguments), stdout=file) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def assigned(log: Path) -> list[int]:
    """What a verifiable consumer has by what it has written down."""
    owned: set[int] = set()
    for line in log.read_text().splitlines() if log.exists() else ():
        event = json.loads(line)
        partitions = {each["partition"] for each in event.get("partitions", ())}
        if event["name"] == "partitions_assigned":
            owned |= partitions
        elif event["name"] == "partitions_revoked":
            owned -= partitions
    return sorted(owned)


def rebalances(broker: BrokerProcess, group: str) -> list[str]:
    """Each that has begun by what the broker has written down. A member is told of its outcome a little later."""
    lines = broker.log_text().splitlines()
    return [line for line in lines if f"group {group} " in line and "-> PreparingRebalance" in line]


@pytest.fixture(params=["3.9.1", "4.3.1"])
def newer_tools(request: pytest.FixtureRequest, broker: BrokerProcess) -> KafkaTools:
    """The versions whose verifiable consumer can be a static member."""
    return KafkaTools(request.param, broker.bootstrap)


def test_a_static_member_that_is_killed_and_comes_back_disturbs_nobody(
    newer_tools: KafkaTools, broker: BrokerProcess, tmp_path: Path
) -> None:
    tools = newer_tools
    topic, group = unique("orders"), unique("readers")
    tools.create_topic(topic, PARTITIONS)
    steady, moving, back = tmp_path / "steady", tmp_path / "moving", tmp_path / "back"
    with member(tools, steady, group, topic, "steady"):
        with member(tools, moving, group, topic, "moving") as killed:
            wait_until(lambda: len(assigned(steady)) == len(assigned(moving)) == 1, "each has one", PATIENCE_S)
            before, kept = rebalances(broker, group), assigned(steady)
            killed.kill()
        with member(tools, back, group, topic, "moving"):
            wait_until(lambda: assigned(back) == assigned(moving), "it has its partition again", PATIENCE_S)
            assert rebalances(broker, group) == before != []
            assert assigned(steady) == kept
            described = tools.run("consumer-groups", "--describe", "--group", group, "--members", "--verbose")
            rows = [line.split() for line in (described.stdout + described.stderr).splitlines() if group in line]
            assert {row[2] for row in rows} == {"steady", "moving"}
            # 3.9 shows the partitions alone, 4.3 with their topic and other columns behind them.
            shown = [[index for index in (0, 1) if {f"({index})", f"{topic}:{index}"} & set(row)] for row in rows]
            assert sorted(shown) == [[0], [1]]
