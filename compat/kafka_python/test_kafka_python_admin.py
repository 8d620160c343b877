"""kafka-python's admin client: topics, configs, groups, offsets and the cluster."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import AlterConfigOp, ConfigResource, ConfigSourceType, KafkaAdminClient, MemberToRemove, OffsetSpec
from kafka.errors import (
    BrokerResponseError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    NoError,
    NonEmptyGroupError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from compat.harness import BrokerProcess, unique, wait_until
from compat.kafka_python.clients import Clients, numbered, read, read_to_end, send_all, values_of


def configs_of(admin: KafkaAdminClient, topic: str, which: str = "modified") -> dict[str, str]:
    described = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter=which)
    return {name: config["value"] for name, config in described["topic"][topic].items()}


def test_a_created_topic_is_described_as_it_was_asked_for(clients: Clients) -> None:
    admin = clients.admin()
    name = unique("created")
    configs = {"retention.ms": "3600000", "cleanup.policy": "compact,delete"}

    answer = admin.create_topics(
        {name: {"num_partitions": 5, "replication_factor": 1, "configs": configs}}, wait_for_metadata=True
    )

    (created,) = answer["topics"]
    assert (created["name"], created["error_code"]) == (name, 0)
    assert (created["num_partitions"], created["replication_factor"]) == (5, 1)
    assert created["configs"]["retention.ms"]["value"] == "3600000"
    assert created["configs"]["segment.bytes"]["value"] == "1073741824"
    (described,) = admin.describe_topics([name])
    broker_id = described["partitions"][0]["leader_id"]
    assert uuid.UUID(described["topic_id"]) == uuid.UUID(created["topic_id"]) != uuid.UUID(int=0)
    assert not described["is_internal"]
    assert sorted(p["partition_index"] for p in described["partitions"]) == [0, 1, 2, 3, 4]
    for partition in described["partitions"]:
        assert (partition["error_code"], partition["leader_id"]) == (0, broker_id)
        assert partition["replica_nodes"] == partition["isr_nodes"] == [broker_id]
        assert partition["offline_replicas"] == []
    assert configs_of(admin, name) == configs
    assert name in admin.list_topics()


def test_a_topic_is_described_by_its_id(clients: Clients) -> None:
    """KIP-516."""
    admin = clients.admin()
    topic = clients.topic("by-id")
    (described,) = admin.describe_topics([topic])

    (by_id,) = admin.describe_topics([uuid.UUID(described["topic_id"])])

    assert by_id["name"] == topic
    assert by_id["partitions"] == described["partitions"]


def test_defaults_are_the_brokers(clients: Clients) -> None:
    admin = clients.admin()
    name = unique("defaults")

    admin.create_topics([name], wait_for_metadata=True)

    (described,) = admin.describe_topics([name])
    assert len(described["partitions"]) == 1
    assert len(described["partitions"][0]["replica_nodes"]) == 1


def test_an_explicit_assignment_is_kept(clients: Clients) -> None:
    admin = clients.admin()
    broker_id = admin.describe_cluster()["brokers"][0]["broker_id"]
    name = unique("assigned")

    admin.create_topics({name: {"assignments": {0: [broker_id], 1: [broker_id]}}}, wait_for_metadata=True)

    (described,) = admin.describe_topics([name])
    assert sorted((p["partition_index"], tuple(p["replica_nodes"])) for p in described["partitions"]) == [
        (0, (broker_id,)),
        (1, (broker_id,)),
    ]


def test_validation_alone_creates_nothing(clients: Clients) -> None:
    admin = clients.admin()
    name = unique("validated")

    answer = admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}}, validate_only=True)

    assert answer["topics"][0]["error_code"] == 0
    assert name not in admin.list_topics()


@pytest.mark.parametrize(
    ("request_of_topic", "error"),
    [
        ({"num_partitions": 0, "replication_factor": 1}, InvalidPartitionsError),
        ({"num_partitions": 1, "replication_factor": 3}, InvalidReplicationFactorError),
        ({"num_partitions": 1, "replication_factor": 1, "configs": {"no.such.config": "1"}}, InvalidConfigurationError),
        (
            {"num_partitions": 1, "replication_factor": 1, "configs": {"retention.ms": "soon"}},
            InvalidConfigurationError,
        ),
        ({"num_partitions": 1, "replication_factor": 1, "configs": {"segment.bytes": "1"}}, InvalidConfigurationError),
    ],
)
def test_a_wrong_request_creates_no_topic(
    clients: Clients, request_of_topic: dict[str, Any], error: type[BrokerResponseError]
) -> None:
    admin = clients.admin()
    name = unique("wrong")

    with pytest.raises(error):
        admin.create_topics({name: request_of_topic})

    assert name not in admin.list_topics()


@pytest.mark.parametrize("name", ["with space", "..", "x" * 250, "colon:colon"])
def test_an_invalid_name_is_refused(clients: Clients, name: str) -> None:
    with pytest.raises(InvalidTopicError):
        clients.admin().create_topics({name: {"num_partitions": 1, "replication_factor": 1}})


def test_one_bad_topic_does_not_spoil_the_others(clients: Clients) -> None:
    admin = clients.admin()
    good, existing = unique("good"), clients.topic("existing")

    answer = admin.create_topics([good, existing], raise_errors=False)

    assert {topic["name"]: topic["error_code"] for topic in answer["topics"]} == {good: 0, existing: 36}
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics([existing])


def test_names_that_differ_only_in_dot_and_underscore_collide(clients: Clients) -> None:
    admin = clients.admin()
    name = unique("col.lide")
    admin.create_topics([name])

    with pytest.raises(InvalidTopicError):
        admin.create_topics([name.replace(".", "_")])


def test_a_deleted_topic_is_gone_and_its_successor_is_empty(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("deleted")
    (before,) = admin.describe_topics([topic])
    send_all(clients.producer(), topic, numbered(10))

    answer = admin.delete_topics([topic])

    assert [(t["name"], t["error_code"]) for t in answer["topics"]] == [(topic, 0)]
    wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics([topic])
    admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    (after,) = admin.describe_topics([topic])
    assert after["topic_id"] != before["topic_id"]
    assert send_all(clients.producer(), topic, [b"new"])[0].offset == 0
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [b"new"]


def test_a_topic_is_deleted_by_its_id(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("deleted-by-id")
    (described,) = admin.describe_topics([topic])

    admin.delete_topics([uuid.UUID(described["topic_id"])])

    wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")


def test_partitions_are_added_and_never_taken_away(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("partitions", partitions=2)
    producer = clients.producer(metadata_max_age_ms=200)
    send_all(producer, topic, numbered(5), partition=1)

    admin.create_partitions({topic: 4})
    admin.wait_for_topics([topic])

    (described,) = admin.describe_topics([topic])
    assert sorted(p["partition_index"] for p in described["partitions"]) == [0, 1, 2, 3]
    wait_until(lambda: producer.partitions_for(topic) == {0, 1, 2, 3}, "the producer knows the new partitions")
    send_all(producer, topic, numbered(5), partition=3)
    for index, expected in ((1, 5), (2, 0), (3, 5)):
        assert values_of(read_to_end(clients.reader(TopicPartition(topic, index)))) == numbered(expected)
    for count in (4, 1):
        with pytest.raises(InvalidPartitionsError):
            admin.create_partitions({topic: count})
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.create_partitions({unique("missing"): 4})


def test_all_configs_of_a_topic_are_described_with_their_sources(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("described", configs={"retention.bytes": "123456"})

    described = admin.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all", include_synonyms=True)

    configs = described["topic"][topic]
    assert {"cleanup.policy", "retention.ms", "segment.bytes", "max.message.bytes", "compression.type"} <= set(configs)
    assert configs["retention.bytes"]["value"] == "123456"
    assert configs["retention.bytes"]["config_source"] == ConfigSourceType.DYNAMIC_TOPIC_CONFIG.name
    assert [(s["name"], s["value"]) for s in configs["retention.bytes"]["synonyms"]] == [
        ("retention.bytes", "123456"),
        ("log.retention.bytes", "-1"),
    ]
    assert configs["cleanup.policy"]["value"] == "delete"


def test_configs_are_set_and_reset_one_by_one(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("altered", configs={"retention.ms": "1000000", "segment.bytes": "2000000"})

    admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "5000000", "retention.bytes": "7"})])
    wait_until(
        lambda: (
            configs_of(admin, topic) == {"retention.ms": "5000000", "segment.bytes": "2000000", "retention.bytes": "7"}
        ),
        "the configs are set",
    )
    admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": (AlterConfigOp.DELETE, None)})])
    wait_until(
        lambda: configs_of(admin, topic) == {"segment.bytes": "2000000", "retention.bytes": "7"},
        "one is its default again",
    )
    admin.reset_configs([ConfigResource("TOPIC", topic, {})])
    wait_until(lambda: configs_of(admin, topic) == {}, "all are their defaults again")


def test_lists_are_appended_to_and_subtracted_from(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("lists", configs={"cleanup.policy": "delete"})

    admin.alter_configs([ConfigResource("TOPIC", topic, {"cleanup.policy": (AlterConfigOp.APPEND, "compact")})])
    wait_until(lambda: configs_of(admin, topic) == {"cleanup.policy": "delete,compact"}, "compact is appended")
    admin.alter_configs([ConfigResource("TOPIC", topic, {"cleanup.policy": (AlterConfigOp.SUBTRACT, "delete")})])
    wait_until(lambda: configs_of(admin, topic) == {"cleanup.policy": "compact"}, "delete is subtracted")


def test_the_old_alter_configs_replaces_all(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("replaced", configs={"retention.ms": "1000000", "segment.bytes": "2000000"})

    # The client adds the configs that are not named, since AlterConfigs resets what it does not hear of.
    admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "3000000"})], incremental=False)
    wait_until(
        lambda: configs_of(admin, topic) == {"retention.ms": "3000000", "segment.bytes": "2000000"}, "one is changed"
    )


@pytest.mark.parametrize(
    "configs",
    [{"retention.ms": "soon"}, {"cleanup.policy": "burn"}, {"retention.ms": (AlterConfigOp.APPEND, "1")}],
)
def test_a_wrong_config_changes_nothing(clients: Clients, configs: dict[str, Any]) -> None:
    admin = clients.admin()
    topic = clients.topic("unchanged", configs={"retention.ms": "1000000"})

    answer = admin.alter_configs([ConfigResource("TOPIC", topic, configs)])

    assert "InvalidConfigurationError" in answer["topic"][topic]
    assert configs_of(admin, topic) == {"retention.ms": "1000000"}


def test_validating_configs_changes_nothing(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("validated")

    answer = admin.alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "5"})], validate_only=True)

    assert answer == {"topic": {topic: "OK"}}
    assert configs_of(admin, topic) == {}


def test_a_changed_config_takes_effect(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("effect")
    producer = clients.producer(enable_idempotence=False)
    producer.send(topic, b"x" * 50_000).get(timeout=10)

    admin.alter_configs([ConfigResource("TOPIC", topic, {"max.message.bytes": "10000"})])

    def refused() -> bool:
        try:
            producer.send(topic, b"x" * 50_000).get(timeout=10)
        except BrokerResponseError as error:
            return error.errno == 10
        return False

    wait_until(refused, "the large record is refused")


def test_the_brokers_configs_are_described(clients: Clients, broker: BrokerProcess) -> None:
    admin = clients.admin()
    broker_id = admin.describe_cluster()["brokers"][0]["broker_id"]

    described = admin.describe_configs([ConfigResource("BROKER", str(broker_id))], config_filter="all")

    configs = described["broker"][str(broker_id)]
    assert str(broker.port) in configs["listeners"]["value"]
    assert configs["log.segment.bytes"]["value"] == "1073741824"
    assert configs["group.initial.rebalance.delay.ms"]["value"] == "0"
    assert configs["listeners"]["read_only"] or configs["group.initial.rebalance.delay.ms"]["read_only"]


def test_a_brokers_dynamic_config_is_changed_and_is_the_topics_default(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("dynamic")
    broker_id = str(admin.describe_cluster()["brokers"][0]["broker_id"])

    def message_limit() -> str:
        return configs_of(admin, topic, "all")["max.message.bytes"]

    assert message_limit() == "1048588"
    admin.alter_configs([ConfigResource("BROKER", broker_id, {"message.max.bytes": "2000000"})])
    wait_until(lambda: message_limit() == "2000000", "the broker's new limit is the topic's")
    admin.reset_configs([ConfigResource("BROKER", broker_id, {"message.max.bytes": None})])
    wait_until(lambda: message_limit() == "1048588", "the limit is its default again")


def test_the_cluster_is_described(clients: Clients, broker: BrokerProcess) -> None:
    cluster = clients.admin().describe_cluster()

    assert len(cluster["cluster_id"]) == 22
    (node,) = cluster["brokers"]
    assert (node["host"], node["port"]) == ("127.0.0.1", broker.port)
    assert cluster["controller_id"] == node["broker_id"]


def test_groups_are_listed_and_described(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("grouped", partitions=2)
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1), partition=0)
    consumer = clients.consumer(topic, group_id=group, client_id="the-client")
    read(consumer, 1)

    listed = {entry["group_id"]: entry for entry in admin.list_groups()}[group]
    assert (listed["protocol_type"], listed["group_state"]) == ("consumer", "Stable")
    assert group in {entry["group_id"] for entry in admin.list_groups(states_filter=["Stable"])}
    assert group not in {entry["group_id"] for entry in admin.list_groups(states_filter=["Empty"])}

    described = admin.describe_groups([group])[group]
    assert (described["error"], described["group_state"]) == (None, "Stable")
    assert (described["protocol_type"], described["protocol_data"]) == ("consumer", "range")
    (member,) = described["members"]
    assert member["member_id"].startswith("the-client-")
    assert (member["client_id"], member["client_host"]) == ("the-client", "/127.0.0.1")
    assert member["member_metadata"]["topics"] == [topic]
    assert [(t["topic"], sorted(t["partitions"])) for t in member["member_assignment"]["assigned_partitions"]] == [
        (topic, [0, 1])
    ]

    consumer.close()
    assert admin.describe_groups([group])[group]["group_state"] == "Empty"
    assert admin.describe_groups([group])[group]["members"] == []


def test_a_group_nobody_knows_is_dead(clients: Clients) -> None:
    group = unique("nobody")

    described = clients.admin().describe_groups([group])[group]

    assert described["group_state"] == "Dead"
    assert described["members"] == []


def test_a_group_is_deleted_when_it_is_empty(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("group-deleted")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1))
    consumer = clients.consumer(topic, group_id=group)
    read(consumer, 1)

    assert admin.delete_groups([group]) == {group: NonEmptyGroupError.__name__}
    consumer.close()
    assert admin.delete_groups([group]) == {group: "OK"}

    assert group not in {entry["group_id"] for entry in admin.list_groups()}
    assert admin.list_group_offsets(group) == {group: {}}
    assert admin.delete_groups([group]) == {group: "GroupIdNotFoundError"}


def test_a_members_removal_by_its_instance_id(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("removed")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1))
    consumer = clients.consumer(topic, group_id=group, group_instance_id="static-1")
    read(consumer, 1)
    # A static member stays when its consumer closes, until its session ends (KIP-345).
    consumer.close()
    assert len(admin.describe_groups([group])[group]["members"]) == 1

    answer = admin.remove_group_members(group, [MemberToRemove(group_instance_id="static-1")])

    assert list(answer.values()) == [NoError]
    assert admin.describe_groups([group])[group]["members"] == []


def test_offsets_of_a_group_are_listed_altered_reset_and_deleted(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("group-offsets", partitions=3)
    first, second, third = (TopicPartition(topic, index) for index in range(3))
    send_all(clients.producer(), topic, numbered(10), partition=0)
    group = unique("group")

    altered = admin.alter_group_offsets(
        group, {first: OffsetAndMetadata(4, "four", -1), second: OffsetAndMetadata(0, "", -1)}
    )
    assert altered == {first: NoError, second: NoError}

    def offsets() -> dict[TopicPartition, tuple[int, str]]:
        listed = admin.list_group_offsets(group)[group]
        return {partition: (entry.offset, entry.metadata) for partition, entry in listed.items()}

    assert offsets() == {first: (4, "four"), second: (0, "")}
    some = admin.list_group_offsets({group: [first, third]})[group]
    assert {partition: entry.offset for partition, entry in some.items()} == {first: 4, third: -1}

    admin.reset_group_offsets(group, {first: OffsetSpec.LATEST})
    assert offsets()[first] == (10, "four")
    admin.reset_group_offsets(group, {first: OffsetSpec.EARLIEST, second: 5})
    assert offsets() == {first: (0, "four"), second: (0, "")}

    assert admin.delete_group_offsets(group, [first]) == {first: NoError}
    assert set(offsets()) == {second}


def test_offsets_in_use_are_not_deleted(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("in-use")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(1))
    consumer = clients.consumer(topic, group_id=group)
    read(consumer, 1)
    consumer.commit()

    answer = admin.delete_group_offsets(group, [TopicPartition(topic, 0)])

    assert [error.errno for error in answer.values()] == [86]
    assert consumer.committed(TopicPartition(topic, 0)) == 1


def test_deleting_a_topic_forgets_its_offsets(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("forgotten")
    partition = TopicPartition(topic, 0)
    group = unique("group")
    admin.alter_group_offsets(group, {partition: OffsetAndMetadata(3, "", -1)})

    admin.delete_topics([topic])

    wait_until(lambda: admin.list_group_offsets(group) == {group: {}}, "the offsets are gone")


def test_offsets_of_partitions_are_listed(clients: Clients) -> None:
    admin = clients.admin()
    topic = clients.topic("offsets")
    partition = TopicPartition(topic, 0)
    producer = clients.producer()
    for timestamp in (1000, 3000, 2000):
        producer.send(topic, b"v", timestamp_ms=timestamp).get(timeout=10)

    def offset_of(spec: Callable[..., Any] | int) -> tuple[int, int]:
        listed = admin.list_partition_offsets({partition: spec})[partition]
        return listed.offset, listed.timestamp

    assert offset_of(OffsetSpec.EARLIEST)[0] == 0
    assert offset_of(OffsetSpec.LATEST)[0] == 3
    assert offset_of(OffsetSpec.MAX_TIMESTAMP) == (1, 3000)
    assert offset_of(1500) == (1, 3000)
    with pytest.raises(BrokerResponseError):
        admin.list_partition_offsets({TopicPartition(unique("missing"), 0): OffsetSpec.LATEST})
