"""Names, assignment and planning of topics: each refusal with Apache Kafka's code and text."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from kpy import ids
from kpy.controller import topics
from kpy.controller.topics import (
    MAX_CONFIG_BYTES,
    MAX_PARTITIONS,
    TopicDefaults,
    assign_replicas,
    check_config_size,
    name_error,
    plan_partitions,
    plan_topic,
)
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.wire.create_partitions import CreatePartitionsAssignment, CreatePartitionsTopic
from kpy.wire.create_topics import CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig

DEFAULTS = TopicDefaults(num_partitions=4, replication_factor=2)


def brokers(racks: dict[int, str | None]) -> dict[int, BrokerImage]:
    return {broker_id: BrokerImage(broker_id, rack, {}) for broker_id, rack in racks.items()}


THREE_BROKERS = brokers({1: None, 2: None, 3: None})


def image_of(*existing: TopicImage) -> MetadataImage:
    return MetadataImage(
        cluster_id="c",
        controller_id=1,
        brokers=THREE_BROKERS,
        topics={topic.name: topic for topic in existing},
        topic_names={topic.topic_id: topic.name for topic in existing},
        broker_configs={},
    )


def topic_of(name: str, *replicas: tuple[int, ...]) -> TopicImage:
    partitions = tuple(PartitionImage(index, hosts[0], 5, hosts, hosts) for index, hosts in enumerate(replicas))
    return TopicImage(name, name.encode().ljust(16), partitions, {"retention.ms": "1"})


def plan(request: CreatableTopic, *existing: str, planned: Sequence[str] = ()) -> TopicImage:
    image = image_of(*(topic_of(name, (1,)) for name in existing))
    return plan_topic(request, image, planned, DEFAULTS, random.Random(7))


def refused(request: CreatableTopic, *existing: str, planned: Sequence[str] = ()) -> tuple[ErrorCode, str | None]:
    with pytest.raises(ApiError) as caught:
        plan(request, *existing, planned=planned)
    return caught.value.code, caught.value.message


def requested(
    name: str = "t", partitions: int = -1, replication_factor: int = -1, **configs: str | None
) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication_factor,
        configs=[CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()],
    )


def assigned(*replicas: tuple[int, list[int]], partitions: int = -1) -> CreatableTopic:
    return CreatableTopic(
        name="t",
        num_partitions=partitions,
        replication_factor=-1,
        assignments=[CreatableReplicaAssignment(partition_index=index, broker_ids=hosts) for index, hosts in replicas],
    )


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "__consumer_offsets"])
def test_names_that_kafka_takes(name: str) -> None:
    assert name_error(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        ("x" * 250, f"the length of '{'x' * 250}' is longer than the max allowed length 249"),
        *(
            (name, f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
            for name in ("a b", "a/b", "a\n", "\u00e9", "a,b", "\u0661")
        ),
    ],
)
def test_names_that_kafka_refuses(name: str, reason: str) -> None:
    assert refused(requested(name)) == (ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {reason}")


def test_defaults_stand_in_for_minus_one() -> None:
    topic = plan(requested())
    assert len(topic.partitions) == 4
    assert {len(partition.replicas) for partition in topic.partitions} == {2}


def test_a_new_topic_is_led_by_its_first_replica_and_all_are_in_sync() -> None:
    topic = plan(requested(partitions=3, replication_factor=3, retention_ms="9"))
    assert topic.name == "t"
    assert topic.topic_id not in (ids.ZERO_ID, ids.METADATA_TOPIC_ID)
    assert topic.configs == {"retention.ms": "9"}
    for index, partition in enumerate(topic.partitions):
        assert partition.partition == index
        assert partition.leader == partition.replicas[0]
        assert partition.isr == partition.replicas
        assert partition.leader_epoch == 0


def test_two_topics_have_two_ids() -> None:
    rng = random.Random(7)
    first = plan_topic(requested("a"), image_of(), (), DEFAULTS, rng)
    second = plan_topic(requested("b"), image_of(), (), DEFAULTS, rng)
    assert first.topic_id != second.topic_id


def test_an_existing_topic_is_refused() -> None:
    assert refused(requested(), "t") == (ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 't' already exists.")


def test_a_null_config_is_refused() -> None:
    code, message = refused(requested(retention_ms=None, segment_bytes="1", cleanup_policy=None))
    assert code == ErrorCode.INVALID_CONFIG
    assert message == "Null value not supported for topic configs: retention.ms,cleanup.policy"


@pytest.mark.parametrize("count", [0, -2])
def test_no_partitions_are_refused(count: int) -> None:
    expected = (ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0.")
    assert refused(requested(partitions=count)) == expected


def test_a_replication_factor_of_zero_is_refused() -> None:
    expected = (ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.")
    assert refused(requested(replication_factor=0)) == expected


def test_more_replicas_than_brokers_are_refused() -> None:
    assert refused(requested(replication_factor=5)) == (
        ErrorCode.INVALID_REPLICATION_FACTOR,
        "Replication factor: 5 larger than available brokers: 3.",
    )


TOO_MANY = (ErrorCode.INVALID_PARTITIONS, "Number of partitions must not be larger than 10000.")


def test_the_bound_on_partitions() -> None:
    assert len(plan(requested(partitions=MAX_PARTITIONS)).partitions) == MAX_PARTITIONS
    assert refused(requested(partitions=MAX_PARTITIONS + 1)) == TOO_MANY
    assert refused(assigned(*((index, [1]) for index in range(MAX_PARTITIONS + 1)))) == TOO_MANY


def test_the_bound_on_configs() -> None:
    configs = {f"key{index}": "1" * (MAX_CONFIG_BYTES // 8 - len("key0")) for index in range(8)}
    check_config_size(configs)
    with pytest.raises(ApiError) as caught:
        check_config_size({**configs, "key0": configs["key0"] + "1"})
    assert caught.value.code == ErrorCode.INVALID_CONFIG
    assert caught.value.message == "Configs of 131073 bytes are larger than 131072."


def test_the_bound_on_one_config() -> None:
    most = "1" * 32767
    assert plan(requested(retention_ms=most)).configs == {"retention.ms": most}
    expected = (ErrorCode.INVALID_CONFIG, "The value of retention.ms has 32768 bytes, more than 32767.")
    assert refused(requested(retention_ms=f"{most}1")) == expected


@pytest.mark.parametrize(("name", "other"), [("a_b", "a.b"), ("a.b", "a_b"), ("a_b.c", "a.b_c")])
def test_names_that_collide_in_metrics_are_refused(name: str, other: str) -> None:
    expected = (ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic '{name}' collides with existing topics: {other}")
    assert refused(requested(name), other) == expected
    assert refused(requested(name), planned=[other]) == expected


def test_names_that_only_look_alike_do_not_collide() -> None:
    assert plan(requested("a-b"), "a.b", "a_b").name == "a-b"
    assert plan(requested("a_b_"), "a.b").name == "a_b_"


def test_a_manual_assignment_is_kept() -> None:
    topic = plan(assigned((1, [3, 1]), (0, [2, 3])))
    assert [partition.replicas for partition in topic.partitions] == [(2, 3), (3, 1)]
    assert [partition.leader for partition in topic.partitions] == [2, 3]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            assigned((0, [1]), partitions=1),
            ErrorCode.INVALID_REQUEST,
            "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the"
            " same time.",
        ),
        (
            assigned((0, [1]), (1, [1, 2])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "All partitions should have the same number of replicas",
        ),
        (
            assigned((0, [1, 1])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Duplicate replica assignment found: {0: [1, 1]}",
        ),
        (
            assigned((0, [])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Cannot have replication factor of 0 for partition id 0.",
        ),
        *(
            (
                wrong,
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                "partitions should be a consecutive 0-based integer sequence",
            )
            for wrong in (
                assigned((0, [1]), (2, [1])),
                assigned((1, [1])),
                assigned((0, [1]), (0, [1])),
                assigned((-1, [1])),
            )
        ),
        (
            assigned((0, [1, 9, 8])),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Unknown broker(s) in replica assignment: 8, 9.",
        ),
    ],
)
def test_manual_assignments_that_are_refused(request_: CreatableTopic, code: ErrorCode, message: str) -> None:
    assert refused(request_) == (code, message)


def grow(count: int, *added: list[int], manual: bool = False) -> TopicImage:
    request = CreatePartitionsTopic(
        name="t",
        count=count,
        assignments=[CreatePartitionsAssignment(broker_ids=hosts) for hosts in added] if manual else None,
    )
    return plan_partitions(request, image_of(topic_of("t", (2, 3), (3, 1))), random.Random(7))


def grow_refused(count: int, *added: list[int], manual: bool = False) -> tuple[ErrorCode, str | None]:
    with pytest.raises(ApiError) as caught:
        grow(count, *added, manual=manual)
    return caught.value.code, caught.value.message


def test_added_partitions_follow_the_old_ones() -> None:
    before = topic_of("t", (2, 3), (3, 1))
    topic = grow(5)
    assert topic.partitions[:2] == before.partitions
    assert topic.topic_id == before.topic_id
    assert topic.configs == before.configs
    assert [partition.partition for partition in topic.partitions] == [0, 1, 2, 3, 4]
    # Round robin goes on where it was: the leader of partition n is n brokers after that of partition 0.
    assert [partition.leader for partition in topic.partitions] == [2, 3, 1, 2, 3]
    assert {len(set(partition.replicas)) for partition in topic.partitions} == {2}
    assert [partition.leader_epoch for partition in topic.partitions] == [5, 5, 0, 0, 0]


def test_added_partitions_may_be_placed_by_hand() -> None:
    assert [partition.replicas for partition in grow(4, [1, 2], [3, 2], manual=True).partitions[2:]] == [(1, 2), (3, 2)]


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (2, "Topic already has 2 partitions."),
        (1, "Topic currently has 2 partitions, which is higher than the requested 1."),
        (-1, "Topic currently has 2 partitions, which is higher than the requested -1."),
    ],
)
def test_a_topic_only_grows(count: int, message: str) -> None:
    assert grow_refused(count) == (ErrorCode.INVALID_PARTITIONS, message)


def test_growing_is_bounded() -> None:
    assert len(grow(MAX_PARTITIONS).partitions) == MAX_PARTITIONS
    assert grow_refused(MAX_PARTITIONS + 1) == TOO_MANY
    assert grow_refused(MAX_PARTITIONS + 1, [1, 2], manual=True) == TOO_MANY


def test_growing_an_unknown_topic_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        plan_partitions(CreatePartitionsTopic("none", 5, None), image_of(), random.Random(7))
    assert caught.value.code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert caught.value.message == "The topic 'none' does not exist."


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([[1, 2]], "Increasing the number of partitions by 2 but 1 assignments provided."),
        ([[1, 9], [1, 2]], "Unknown broker(s) in replica assignment: 9."),
        ([[1, 1], [1, 2]], "Duplicate brokers not allowed in replica assignment: 1, 1 for partition id 2."),
        ([[1, 2], []], "Cannot have replication factor of 0 for partition id 3."),
        (
            [[1, 2, 3], [1]],
            "Inconsistent replication factor between partitions, partition 0 has 2 while partitions [2, 3] have"
            " replication factors [3, 1], respectively.",
        ),
    ],
)
def test_added_assignments_that_are_refused(added: list[list[int]], message: str) -> None:
    assert grow_refused(4, *added, manual=True) == (ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def test_replicas_spread_evenly_without_racks() -> None:
    hosts = brokers(dict.fromkeys(range(5)))
    assignment = assign_replicas(hosts, 10, 3, random.Random(1), after=0)
    # Apache Kafka's own example for five brokers (class AdminUtils).
    assert assignment == {
        0: [0, 1, 2],
        1: [1, 2, 3],
        2: [2, 3, 4],
        3: [3, 4, 0],
        4: [4, 0, 1],
        5: [0, 2, 3],
        6: [1, 3, 4],
        7: [2, 4, 0],
        8: [3, 0, 1],
        9: [4, 1, 2],
    }


def test_replicas_spread_over_racks() -> None:
    hosts = brokers({0: "rack1", 1: "rack3", 2: "rack3", 3: "rack2", 4: "rack2", 5: "rack1"})
    assignment = assign_replicas(hosts, 7, 3, random.Random(1), after=0)
    # Apache Kafka's own example (class AdminUtils): the brokers stand as 0, 3, 1, 5, 4, 2.
    assert assignment == {
        0: [0, 3, 1],
        1: [3, 1, 5],
        2: [1, 5, 4],
        3: [5, 4, 2],
        4: [4, 2, 0],
        5: [2, 0, 3],
        6: [0, 4, 2],
    }


def test_more_replicas_than_racks_use_each_rack() -> None:
    racks = {0: "a", 1: "a", 2: "a", 3: "b", 4: "b", 5: "b"}
    for seed in range(20):
        for hosts in assign_replicas(brokers(dict(racks)), 12, 4, random.Random(seed)).values():
            assert len(set(hosts)) == 4
            assert {racks[host] for host in hosts} == {"a", "b"}


def test_every_start_gives_each_broker_its_share() -> None:
    for seed in range(20):
        assignment = assign_replicas(THREE_BROKERS, 9, 2, random.Random(seed))
        assert Counter(hosts[0] for hosts in assignment.values()) == {1: 3, 2: 3, 3: 3}


def test_racks_on_some_brokers_only_are_refused() -> None:
    with pytest.raises(ApiError) as caught:
        assign_replicas(brokers({1: "a", 2: None}), 1, 1, random.Random(1))
    assert caught.value.message == "Not all brokers have rack information for replica rack aware assignment."


def test_internal_topics_are_known() -> None:
    assert topics.is_internal("__consumer_offsets")
    assert topics.is_internal("__transaction_state")
    assert not topics.is_internal("__mine")
