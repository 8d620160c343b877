"""kafka-consumer-groups: a group from its first member to its deletion."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from compat.harness import unique
from compat.java.kafka_tools import KafkaTools, Output

PARTITIONS = 2
EVENT_TIMEOUT_S = 30.0


@contextmanager
def live_member(tools: KafkaTools, group: str, topic: str) -> Iterator[None]:
    """A verifiable consumer that has its partitions, and leaves the group at the end."""
    arguments = ("--group-id", group, "--topic", topic, "--session-timeout", "30000")
    with subprocess.Popen(
        tools.command("verifiable-consumer", arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as member:
        assert member.stdout
        try:
            for line in member.stdout:
                event = json.loads(line)
                if event["name"] == "partitions_assigned" and len(event["partitions"]) == PARTITIONS:
                    break
            else:
                raise AssertionError(f"the member ended before it had its partitions:\n{member.communicate()[1]}")
            yield
        finally:
            member.terminate()
            member.communicate(timeout=EVENT_TIMEOUT_S)


def produce(tools: KafkaTools, topic: str, count: int) -> None:
    """`count` keyed records; keys decide the partition, so both partitions get some."""
    lines = "".join(f"{number}|value {number}\n" for number in range(count))
    properties = [
        part for one in ("parse.key=true", "key.separator=|") for part in (tools.options.reader_property, one)
    ]
    tools.run("console-producer", "--topic", topic, *properties, stdin=lines)


def offsets(tools: KafkaTools, group: str) -> dict[int, tuple[int, int, int]]:
    """Partition -> (committed, log end, lag) of a group of one topic without members."""
    output = tools.run("consumer-groups", "--describe", "--group", group)
    heading = ("CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID")
    rows = output.table("GROUP", "TOPIC", "PARTITION", *heading)
    assert all(row[0] == group and row[6:] == ("-", "-", "-") for row in rows)
    return {int(row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in rows}


def reset(tools: KafkaTools, group: str, *where: str) -> dict[int, int]:
    """Reset a group's offsets; partition -> new offset."""
    output = tools.run("consumer-groups", "--reset-offsets", "--group", group, *where)
    return {int(row[2]): int(row[3]) for row in output.table("GROUP", "TOPIC", "PARTITION", "NEW-OFFSET")}


def said(output: Output) -> str:
    return output.stdout + output.stderr


def test_offsets_can_be_shown_reset_and_deleted(tools: KafkaTools) -> None:
    topic, group = unique("orders"), unique("readers")
    tools.create_topic(topic, PARTITIONS)
    produce(tools, topic, 20)
    between = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    consumer = ("--topic", topic, "--group", group, "--from-beginning", "--max-messages", "20", "--timeout-ms", "30000")
    tools.run("console-consumer", *consumer)
    committed = {partition: row[0] for partition, row in offsets(tools, group).items()}
    assert sum(committed.values()) == 20
    assert min(committed.values()) > 2

    produce(tools, topic, 20)
    assert offsets(tools, group) == {p: (offset, 2 * offset, offset) for p, offset in committed.items()}

    listed = tools.run("consumer-groups", "--list", "--state").table("GROUP", "STATE")
    assert (group, "Empty") in listed

    everywhere = ("--topic", topic)
    assert reset(tools, group, *everywhere, "--to-earliest", "--dry-run") == dict.fromkeys(committed, 0)
    assert reset(tools, group, *everywhere, "--to-datetime", between, "--execute") == committed
    assert reset(tools, group, *everywhere, "--to-latest", "--execute") == {p: 2 * n for p, n in committed.items()}
    assert reset(tools, group, "--topic", f"{topic}:1", "--to-offset", "2", "--execute") == {1: 2}
    shifted = reset(tools, group, *everywhere, "--shift-by", "-1", "--execute")
    assert shifted == {0: 2 * committed[0] - 1, 1: 1}
    assert {partition: row[0] for partition, row in offsets(tools, group).items()} == shifted

    deleted = tools.run("consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    assert deleted.table("TOPIC", "PARTITION", "STATUS") == [(topic, "0", "Successful")]
    assert set(offsets(tools, group)) == {1}
    tools.run("consumer-groups", "--delete", "--group", group)
    gone = said(tools.run("consumer-groups", "--describe", "--group", group))
    # 4.3's tool has two words for it: DescribeGroups v6 (KIP-1043) made it an error, which the tool shows as it is.
    assert f"Consumer group '{group}' does not exist." in gone or f"Group {group} not found." in gone


def test_live_group_is_described_and_protected(tools: KafkaTools) -> None:
    topic, group = unique("orders"), unique("readers")
    tools.create_topic(topic, PARTITIONS)
    of_group = ("--group", group)
    with live_member(tools, group, topic):
        members = said(tools.run("consumer-groups", "--describe", *of_group, "--members"))
        row = next(line.split() for line in members.splitlines() if line.startswith(group))
        assert row[1].startswith(f"consumer-{group}-1-")
        assert row[2:5] == ["/127.0.0.1", f"consumer-{group}-1", str(PARTITIONS)]

        state = tools.run("consumer-groups", "--describe", *of_group, "--state")
        heading = ("GROUP", "COORDINATOR", "(ID)", "ASSIGNMENT-STRATEGY", "STATE", "#MEMBERS")
        ((name, coordinator, _, strategy, group_state, count),) = state.table(*heading)
        assert (name, strategy, group_state, count) == (group, "range", "Stable", "1")
        assert coordinator.startswith("127.0.0.1:")

        offset_reset = tools.run(
            "consumer-groups", "--reset-offsets", *of_group, "--topic", topic, "--to-earliest", "--execute"
        )
        assert f"if the group '{group}' is inactive, but the current state is Stable." in said(offset_reset)
        offset_deletion = tools.run("consumer-groups", "--delete-offsets", *of_group, "--topic", topic)
        assert said(offset_deletion).count("GroupSubscribedToTopicException") == PARTITIONS
        deletion = tools.run("consumer-groups", "--delete", *of_group)
        assert "GroupNotEmptyException" in said(deletion)

    deletion = tools.run("consumer-groups", "--delete", *of_group)
    assert deletion.lines == [f"Deletion of requested consumer groups ('{group}') was successful."]
    again = tools.run("consumer-groups", "--delete", *of_group)
    assert "GroupIdNotFoundException" in said(again)
    assert group not in tools.run("consumer-groups", "--list").lines
