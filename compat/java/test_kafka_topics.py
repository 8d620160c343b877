"""kafka-topics and kafka-configs: what they change is what they then show."""

import re
from typing import NamedTuple

from compat.harness import unique, wait_until
from compat.java.kafka_tools import KafkaTools


class Described(NamedTuple):
    """What `kafka-topics --describe` says of one topic; for each partition (leader, replicas, isr)."""

    topic_id: str
    partition_count: int
    replication_factor: int
    configs: dict[str, str]
    partitions: dict[int, tuple[str, str, str]]


def describe(tools: KafkaTools, topic: str) -> Described:
    heading, *rows = tools.run("topics", "--describe", "--topic", topic).lines
    summary = re.fullmatch(
        rf"Topic: {topic}\tTopicId: (\S{{22}})\tPartitionCount: (\d+)\tReplicationFactor: (\d+)\tConfigs: ?(\S*)",
        heading,
    )
    assert summary, heading
    configs = dict(pair.split("=", 1) for pair in re.split(r",(?=[a-z.]+=)", summary[4]) if pair)
    partitions: dict[int, tuple[str, str, str]] = {}
    for row in rows:
        fields = dict(re.findall(r"(\w+): (\S+)", row))
        partitions[int(fields["Partition"])] = (fields["Leader"], fields["Replicas"], fields["Isr"])
    return Described(summary[1], int(summary[2]), int(summary[3]), configs, partitions)


def listed(tools: KafkaTools) -> list[str]:
    return tools.run("topics", "--list").lines


def test_topic_lives_from_create_to_delete(tools: KafkaTools) -> None:
    topic = unique("orders")
    create = ("--create", "--topic", topic, "--partitions", "3", "--replication-factor", "1")
    created = tools.run(
        "topics", *create, "--config", "cleanup.policy=compact,delete", "--config", "retention.ms=123456"
    )
    assert created.lines == [f"Created topic {topic}."]
    assert topic in listed(tools)

    described = describe(tools, topic)
    assert (described.partition_count, described.replication_factor) == (3, 1)
    assert described.configs["cleanup.policy"] == "compact,delete"
    assert described.configs["retention.ms"] == "123456"
    broker_id = described.partitions[0][0]
    assert described.partitions == dict.fromkeys(range(3), (broker_id, broker_id, broker_id))

    again = tools.run("topics", *create, exit_code=1)
    assert f"Topic '{topic}' already exists." in again.stdout + again.stderr
    assert tools.run("topics", *create, "--if-not-exists").stdout == ""

    tools.run("topics", "--alter", "--topic", topic, "--partitions", "5")
    grown = describe(tools, topic)
    assert sorted(grown.partitions) == [0, 1, 2, 3, 4]
    assert grown.topic_id == described.topic_id
    shrunk = tools.run("topics", "--alter", "--topic", topic, "--partitions", "2", exit_code=1)
    assert "InvalidPartitionsException" in shrunk.stderr

    overrides = tools.run("topics", "--describe", "--topics-with-overrides", "--topic", topic)
    assert len(overrides.lines) == 1
    assert tools.run("topics", "--describe", "--under-replicated-partitions").stdout == ""

    tools.run("topics", "--delete", "--topic", topic)
    wait_until(lambda: topic not in listed(tools), "the deleted topic is no longer listed")
    missing = tools.run("topics", "--describe", "--topic", topic, exit_code=1)
    assert "does not exist" in missing.stdout

    # A topic of the same name is a new topic.
    tools.run("topics", *create)
    assert describe(tools, topic).topic_id != described.topic_id


def test_replicas_may_be_assigned_by_hand(tools: KafkaTools) -> None:
    first = unique("first")
    tools.create_topic(first, 1)
    broker_id = describe(tools, first).partitions[0][0]
    by_hand = unique("by-hand")
    tools.run("topics", "--create", "--topic", by_hand, "--replica-assignment", f"{broker_id},{broker_id}")
    assert describe(tools, by_hand).partition_count == 2


def test_impossible_topics_are_refused_with_their_reason(tools: KafkaTools) -> None:
    too_many = tools.run("topics", "--create", "--topic", unique("t"), "--replication-factor", "3", exit_code=1)
    assert "InvalidReplicationFactorException" in too_many.stderr
    bad_config = ("--config", "retention.ms=soon")
    refused = tools.run("topics", "--create", "--topic", unique("t"), *bad_config, exit_code=1)
    assert "retention.ms" in refused.stderr


def topic_configs(tools: KafkaTools, topic: str) -> dict[str, tuple[str, str]]:
    """The overrides of a topic: name -> (value, the sources that `synonyms` lists, nearest first)."""
    heading, *rows = tools.run("configs", "--entity-type", "topics", "--entity-name", topic, "--describe").lines
    assert heading == f"Dynamic configs for topic {topic} are:"
    return dict(parse_config(row) for row in rows)


def parse_config(row: str) -> tuple[str, tuple[str, str]]:
    config = re.fullmatch(r"  ([^=]+)=(.*) sensitive=false synonyms=\{(.*)\}", row)
    assert config, row
    return config[1], (config[2], config[3])


def test_topic_configs_can_be_set_shown_and_removed(tools: KafkaTools) -> None:
    topic = unique("configured")
    tools.create_topic(topic, 1)
    entity = ("--entity-type", "topics", "--entity-name", topic)
    assert topic_configs(tools, topic) == {}

    altered = tools.run(
        "configs", *entity, "--alter", "--add-config", "retention.ms=1000000,cleanup.policy=[compact,delete]"
    )
    assert altered.lines == [f"Completed updating config for topic {topic}."]
    assert topic_configs(tools, topic) == {
        "cleanup.policy": (
            "compact,delete",
            "DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, DEFAULT_CONFIG:log.cleanup.policy=delete",
        ),
        "retention.ms": ("1000000", "DYNAMIC_TOPIC_CONFIG:retention.ms=1000000"),
    }

    _, *rows = tools.run("configs", *entity, "--describe", "--all").lines
    everything = dict(parse_config(row) for row in rows)
    assert everything["retention.ms"][0] == "1000000"
    assert everything["segment.bytes"] == ("1073741824", "DEFAULT_CONFIG:log.segment.bytes=1073741824")
    assert {"min.insync.replicas", "max.message.bytes", "compression.type", "message.timestamp.type"} < set(everything)

    tools.run("configs", *entity, "--alter", "--delete-config", "retention.ms")
    assert set(topic_configs(tools, topic)) == {"cleanup.policy"}


def test_wrong_topic_configs_are_refused_with_their_reason(tools: KafkaTools) -> None:
    topic = unique("configured")
    tools.create_topic(topic, 1)
    alter = ("--entity-type", "topics", "--entity-name", topic, "--alter", "--add-config")
    not_a_number = tools.run("configs", *alter, "retention.ms=soon", exit_code=1)
    assert "InvalidConfigurationException" in not_a_number.stderr
    assert "Invalid value soon for configuration retention.ms" in not_a_number.stderr
    unknown = tools.run("configs", *alter, "no.such.config=1", exit_code=1)
    assert "InvalidConfigurationException: Unknown topic config name: no.such.config" in unknown.stderr
    assert topic_configs(tools, topic) == {}


def test_broker_configs_are_shown_with_their_sources(tools: KafkaTools) -> None:
    topic = unique("any")
    tools.create_topic(topic, 1)
    broker_id = describe(tools, topic).partitions[0][0]
    described = tools.run("configs", "--entity-type", "brokers", "--entity-name", broker_id, "--describe", "--all")
    heading, *rows = described.lines
    assert heading == f"All configs for broker {broker_id} are:"
    configs = dict(parse_config(row) for row in rows if "sensitive=false" in row)
    assert configs["log.retention.hours"] == ("168", "DEFAULT_CONFIG:log.retention.hours=168")
    # What the harness sets comes from the broker's own configuration.
    value, sources = configs["offsets.topic.num.partitions"]
    assert (value, sources.split(", ")[0]) == ("5", "STATIC_BROKER_CONFIG:offsets.topic.num.partitions=5")


def test_cluster_wide_broker_config_can_be_changed_while_it_runs(tools: KafkaTools) -> None:
    default = ("--entity-type", "brokers", "--entity-default")
    tools.run("configs", *default, "--alter", "--add-config", "log.retention.ms=7200000")
    shown = tools.run("configs", *default, "--describe").lines
    assert shown == [
        "Default configs for brokers in the cluster are:",
        "  log.retention.ms=7200000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7200000}",
    ]
    topic = unique("inherits")
    tools.create_topic(topic, 1)
    _, *rows = tools.run("configs", "--entity-type", "topics", "--entity-name", topic, "--describe", "--all").lines
    assert dict(parse_config(row) for row in rows)["retention.ms"] == (
        "7200000",
        "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7200000, DEFAULT_CONFIG:log.retention.hours=168",
    )
    tools.run("configs", *default, "--alter", "--delete-config", "log.retention.ms")
    assert tools.run("configs", *default, "--describe").lines == ["Default configs for brokers in the cluster are:"]
