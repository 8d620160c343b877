"""librdkafka's admin client: topics, configs, groups, offsets and the cluster."""

from collections.abc import Mapping

import pytest
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from compat.confluent.clients import Clients, create_topic, numbered, offsets_and_values, read, read_to_end, send_all
from compat.harness import unique, wait_until


def error_code(raised: pytest.ExceptionInfo[KafkaException]) -> int:
    error: KafkaError = raised.value.args[0]
    return error.code()


def configs_of(admin: AdminClient, topic: str) -> dict[str, ConfigEntry]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return admin.describe_configs([resource])[resource].result(10)


def overrides_of(admin: AdminClient, topic: str) -> dict[str, str]:
    return {
        name: entry.value
        for name, entry in configs_of(admin, topic).items()
        if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    }


def alter(admin: AdminClient, topic: str, *entries: ConfigEntry) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=list(entries))
    admin.incremental_alter_configs([resource])[resource].result(10)


def set_to(name: str, value: str | None, operation: AlterConfigOpType = AlterConfigOpType.SET) -> ConfigEntry:
    return ConfigEntry(name, value, incremental_operation=operation)


def test_a_created_topic_is_described_as_it_was_asked_for(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("created", partitions=5, configs={"retention.ms": "3600000"})

    described = admin.describe_topics(TopicCollection([topic]))[topic].result(10)

    assert described.name == topic
    assert not described.is_internal
    assert len(str(described.topic_id)) == 22
    assert [partition.id for partition in described.partitions] == [0, 1, 2, 3, 4]
    for partition in described.partitions:
        assert partition.leader.id == partition.replicas[0].id == partition.isr[0].id
        assert f"{partition.leader.host}:{partition.leader.port}" == clients.bootstrap
    assert overrides_of(admin, topic) == {"retention.ms": "3600000"}


@pytest.mark.parametrize(
    ("partitions", "replicas", "configs", "code"),
    [
        (1, 3, {}, KafkaError.INVALID_REPLICATION_FACTOR),
        (1, 1, {"no.such.config": "1"}, KafkaError.INVALID_CONFIG),
        (1, 1, {"retention.ms": "soon"}, KafkaError.INVALID_CONFIG),
    ],
)
def test_a_wrong_request_creates_no_topic(
    clients: Clients, partitions: int, replicas: int, configs: Mapping[str, str], code: int
) -> None:
    admin = clients.admin()
    name = unique("wrong")

    with pytest.raises(KafkaException) as raised:
        admin.create_topics([NewTopic(name, partitions, replicas, config=dict(configs))])[name].result(10)

    assert error_code(raised) == code
    assert raised.value.args[0].str()
    assert name not in admin.list_topics(timeout=10).topics


def test_a_topic_is_created_once(clients: Clients) -> None:
    topic = clients.topic("once")

    with pytest.raises(KafkaException) as raised:
        create_topic(clients.admin(), topic)

    assert error_code(raised) == KafkaError.TOPIC_ALREADY_EXISTS
    assert raised.value.args[0].str() == f"Topic '{topic}' already exists."


def test_validation_alone_creates_nothing(clients: Clients) -> None:
    admin = clients.admin()
    name = unique("validated")

    admin.create_topics([NewTopic(name, 2, 1)], validate_only=True)[name].result(10)

    assert name not in admin.list_topics(timeout=10).topics


def test_a_deleted_topic_is_gone_and_its_successor_is_empty(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("deleted")
    before = admin.describe_topics(TopicCollection([topic]))[topic].result(10)
    send_all(clients.producer(), topic, numbered(10))

    admin.delete_topics([topic])[topic].result(10)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")
    with pytest.raises(KafkaException) as raised:
        admin.delete_topics([topic])[topic].result(10)
    assert error_code(raised) == KafkaError.UNKNOWN_TOPIC_OR_PART

    create_topic(admin, topic)
    after = admin.describe_topics(TopicCollection([topic]))[topic].result(10)
    assert str(after.topic_id) != str(before.topic_id)
    assert send_all(clients.producer(), topic, [b"new"])[0].offset() == 0
    assert offsets_and_values(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [(0, b"new")]


def test_describing_an_unknown_topic_is_an_error(clients: Clients) -> None:
    missing = unique("missing")

    with pytest.raises(KafkaException) as raised:
        clients.admin().describe_topics(TopicCollection([missing]))[missing].result(10)

    assert error_code(raised) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_partitions_are_added_and_never_taken_away(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("partitions", partitions=2)

    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)

    wait_until(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 4, "four partitions")
    for count in (4, 1):
        with pytest.raises(KafkaException) as raised:
            admin.create_partitions([NewPartitions(topic, count)])[topic].result(10)
        assert error_code(raised) == KafkaError.INVALID_PARTITIONS


def test_all_configs_of_a_topic_are_described(clients: Clients) -> None:
    topic = clients.topic("described", configs={"retention.bytes": "123456", "cleanup.policy": "compact"})

    configs = configs_of(clients.admin(), topic)

    assert {"cleanup.policy", "retention.ms", "segment.bytes", "max.message.bytes", "compression.type"} <= set(configs)
    assert configs["retention.bytes"].value == "123456"
    assert configs["cleanup.policy"].value == "compact"
    assert configs["segment.bytes"].is_default
    synonyms = configs["retention.bytes"].synonyms
    assert synonyms["retention.bytes"].value == "123456"
    assert synonyms["log.retention.bytes"].value == "-1"
    assert not any(entry.is_read_only or entry.is_sensitive for entry in configs.values())


def test_configs_are_set_deleted_appended_and_subtracted(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("altered", configs={"retention.ms": "1000000", "segment.bytes": "2000000"})

    alter(admin, topic, set_to("retention.ms", "5000000"), set_to("cleanup.policy", "compact"))
    wait_until(
        lambda: (
            overrides_of(admin, topic)
            == {"retention.ms": "5000000", "segment.bytes": "2000000", "cleanup.policy": "compact"}
        ),
        "two are set",
    )
    alter(
        admin,
        topic,
        set_to("retention.ms", None, AlterConfigOpType.DELETE),
        set_to("cleanup.policy", "delete", AlterConfigOpType.APPEND),
    )
    wait_until(
        lambda: overrides_of(admin, topic) == {"segment.bytes": "2000000", "cleanup.policy": "compact,delete"},
        "one is deleted, one appended to",
    )
    alter(admin, topic, set_to("cleanup.policy", "compact", AlterConfigOpType.SUBTRACT))
    wait_until(
        lambda: overrides_of(admin, topic) == {"segment.bytes": "2000000", "cleanup.policy": "delete"},
        "one is subtracted from",
    )


def test_the_old_alter_configs_replaces_all(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("replaced", configs={"retention.ms": "1000000", "segment.bytes": "2000000"})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={"retention.bytes": "5"})

    with pytest.warns(DeprecationWarning, match="incremental_alter_configs"):
        admin.alter_configs([resource])[resource].result(10)

    wait_until(lambda: overrides_of(admin, topic) == {"retention.bytes": "5"}, "the others are defaults again")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (set_to("retention.ms", "soon"), KafkaError.INVALID_CONFIG),
        (set_to("no.such.config", "1"), KafkaError.INVALID_CONFIG),
        (set_to("retention.ms", "1", AlterConfigOpType.APPEND), KafkaError.INVALID_CONFIG),
    ],
)
def test_a_wrong_config_changes_nothing(clients: Clients, entry: ConfigEntry, code: int) -> None:
    admin = clients.admin()
    topic = clients.topic("unchanged", configs={"retention.ms": "1000000"})

    with pytest.raises(KafkaException) as raised:
        alter(admin, topic, entry)

    assert error_code(raised) == code
    assert overrides_of(admin, topic) == {"retention.ms": "1000000"}


def test_configs_of_an_unknown_topic_are_an_error(clients: Clients) -> None:
    with pytest.raises(KafkaException) as raised:
        configs_of(clients.admin(), unique("missing"))

    assert error_code(raised) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_brokers_configs_are_described(clients: Clients) -> None:
    admin = clients.admin()
    (broker_id,) = admin.list_topics(timeout=10).brokers
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker_id))

    configs = admin.describe_configs([resource])[resource].result(10)

    assert configs["log.segment.bytes"].value == "1073741824"
    assert configs["group.initial.rebalance.delay.ms"].value == "0"
    assert configs["group.initial.rebalance.delay.ms"].source == ConfigSource.STATIC_BROKER_CONFIG.value
    assert configs["group.initial.rebalance.delay.ms"].is_read_only


def test_the_cluster_is_described(clients: Clients) -> None:
    cluster = clients.admin().describe_cluster().result(10)

    assert len(cluster.cluster_id) == 22
    (node,) = cluster.nodes
    assert f"{node.host}:{node.port}" == clients.bootstrap
    assert cluster.controller.id == node.id


def test_groups_are_listed_and_described(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("grouped", partitions=2)
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1), partition=0)
    consumer = clients.consumer({"group.id": group, "client.id": "the-client"})
    consumer.subscribe([topic])
    read(consumer, 1)

    def state_of_listed(states: set[ConsumerGroupState]) -> ConsumerGroupState | None:
        result = admin.list_consumer_groups(states=states).result(10)
        assert result.errors == []
        return {listing.group_id: listing.state for listing in result.valid}.get(group)

    assert state_of_listed({ConsumerGroupState.STABLE}) == ConsumerGroupState.STABLE
    assert state_of_listed({ConsumerGroupState.EMPTY}) is None

    described = admin.describe_consumer_groups([group])[group].result(10)
    assert (described.state, described.partition_assignor) == (ConsumerGroupState.STABLE, "range")
    assert not described.is_simple_consumer_group
    assert f"{described.coordinator.host}:{described.coordinator.port}" == clients.bootstrap
    (member,) = described.members
    assert (member.client_id, member.host) == ("the-client", "/127.0.0.1")
    assert sorted((p.topic, p.partition) for p in member.assignment.topic_partitions) == [(topic, 0), (topic, 1)]

    consumer.close()
    assert admin.describe_consumer_groups([group])[group].result(10).state == ConsumerGroupState.EMPTY


def test_a_group_nobody_knows_is_dead(clients: Clients) -> None:
    group = unique("nobody")

    assert clients.admin().describe_consumer_groups([group])[group].result(10).state == ConsumerGroupState.DEAD


def test_a_group_is_deleted_when_it_is_empty(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("group-deleted")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1))
    consumer = clients.consumer({"group.id": group})
    consumer.subscribe([topic])
    read(consumer, 1)

    with pytest.raises(KafkaException) as raised:
        admin.delete_consumer_groups([group])[group].result(10)
    assert error_code(raised) == KafkaError.NON_EMPTY_GROUP
    consumer.close()
    admin.delete_consumer_groups([group])[group].result(10)
    with pytest.raises(KafkaException) as raised:
        admin.delete_consumer_groups([group])[group].result(10)
    assert error_code(raised) == KafkaError.GROUP_ID_NOT_FOUND


def test_offsets_of_a_group_are_altered_and_listed(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("group-offsets", partitions=3)
    group = unique("group")

    altered = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 4), TopicPartition(topic, 1, 9)])]
    )[group].result(10)
    assert [(p.partition, p.error) for p in altered.topic_partitions] == [(0, None), (1, None)]

    listed = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
    assert sorted((p.topic, p.partition, p.offset) for p in listed.topic_partitions) == [(topic, 0, 4), (topic, 1, 9)]
    some = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1), TopicPartition(topic, 2)])]
    )[group].result(10)
    assert [(p.partition, p.offset) for p in some.topic_partitions] == [(1, 9), (2, -1001)]


def test_offsets_of_a_group_with_members_are_not_altered(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("busy")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1))
    consumer = clients.consumer({"group.id": group})
    consumer.subscribe([topic])
    read(consumer, 1)

    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 5)])
    altered = admin.alter_consumer_group_offsets([wanted])[group].result(10)

    (partition,) = altered.topic_partitions
    assert partition.error is not None
    assert partition.error.code() == KafkaError.UNKNOWN_MEMBER_ID


def test_offsets_of_partitions_are_listed(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("offsets")
    partition = TopicPartition(topic, 0)
    producer = clients.producer()
    for timestamp in (1000, 3000, 2000):
        send_all(producer, topic, [b"v"], timestamp=timestamp)

    def offset_of(spec: OffsetSpec) -> tuple[int, int]:
        found = admin.list_offsets({partition: spec})[partition].result(10)
        return found.offset, found.timestamp

    assert offset_of(OffsetSpec.earliest())[0] == 0
    assert offset_of(OffsetSpec.latest())[0] == 3
    assert offset_of(OffsetSpec.max_timestamp()) == (1, 3000)
    assert offset_of(OffsetSpec.for_timestamp(1500)) == (1, 3000)
