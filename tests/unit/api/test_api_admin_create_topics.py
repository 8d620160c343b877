"""CreateTopics: what is answered, with Apache Kafka 3.9.1's codes and texts, and what is then there."""

import pytest
from admin_broker import call, changes, create, make_broker, open_cluster, register

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.embedded import EmbeddedStore
from kpy.wire import create_topics
from kpy.wire.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
)


@pytest.fixture
def broker() -> Broker:
    return make_broker()


def topic(name: str = "t", partitions: int = -1, replication_factor: int = -1, **configs: str | None) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replication_factor,
        configs=[CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()],
    )


def ask(
    broker: Broker, *topics: CreatableTopic, version: int = 7, timeout_ms: int = 1000, validate_only: bool = False
) -> list[CreatableTopicResult]:
    request = CreateTopicsRequest(topics=list(topics), timeout_ms=timeout_ms, validate_only=validate_only)
    results: list[CreatableTopicResult] = call(broker, create_topics, request, version).topics
    return results


def refused(broker: Broker, asked: CreatableTopic) -> tuple[int, str | None]:
    before = broker.cluster.image
    (result,) = ask(broker, asked)
    assert result.topic_id == ZERO_ID
    assert (result.num_partitions, result.replication_factor, result.configs) == (-1, -1, [])
    assert broker.cluster.image is before
    return result.error_code, result.error_message


@pytest.mark.parametrize("version", range(8))
def test_each_version_creates_a_topic(version: int, broker: Broker) -> None:
    (result,) = ask(broker, topic("t", 2, 1), version=version)
    assert (result.name, result.error_code) == ("t", ErrorCode.NONE)
    assert len(broker.cluster.image.topics["t"].partitions) == 2


def test_the_answer_describes_the_topic(broker: Broker) -> None:
    (result,) = ask(broker, topic("t", 2, 1, retention_ms="9"))
    assert result.error_message is None
    assert result.topic_id == broker.cluster.image.topics["t"].topic_id
    assert (result.num_partitions, result.replication_factor) == (2, 1)
    assert result.configs is not None
    configs = {config.name: config for config in result.configs}
    assert len(configs) == 36
    assert (configs["retention.ms"].value, configs["retention.ms"].config_source) == ("9", 1)
    assert (configs["segment.ms"].value, configs["segment.ms"].config_source) == ("604800000", 5)
    assert not configs["retention.ms"].read_only


def test_no_id_before_version_7_and_no_configs_before_5(broker: Broker) -> None:
    (result,) = ask(broker, topic("a", 1, 1), version=6)
    assert result.topic_id == ZERO_ID
    assert result.configs
    (result,) = ask(broker, topic("b", 1, 1), version=4)
    assert result.configs == []


def test_minus_one_means_the_brokers_defaults() -> None:
    broker = make_broker(num_partitions="3")
    (result,) = ask(broker, topic("t"))
    assert (result.num_partitions, result.replication_factor) == (3, 1)


def test_several_topics_are_one_change(broker: Broker) -> None:
    before = changes(broker)
    results = ask(broker, topic("a"), topic("b"), topic("bad name"), topic("c"))
    assert [result.error_code for result in results] == [0, 0, ErrorCode.INVALID_TOPIC_EXCEPTION, 0]
    assert list(broker.cluster.image.topics) == ["a", "b", "c"]
    assert changes(broker) == before + 1


def test_validate_only_creates_nothing(broker: Broker) -> None:
    before = broker.cluster.image
    (result,) = ask(broker, topic("t", 2), validate_only=True)
    assert (result.error_code, result.num_partitions, result.topic_id) == (0, 2, ZERO_ID)
    assert result.configs is not None
    assert len(result.configs) == 36
    assert broker.cluster.image is before


@pytest.mark.parametrize("timeout_ms", [0, -1])
def test_without_time_to_wait_the_topic_is_created_and_timed_out(timeout_ms: int, broker: Broker) -> None:
    (result,) = ask(broker, topic("t"), timeout_ms=timeout_ms)
    assert (result.error_code, result.error_message) == (ErrorCode.REQUEST_TIMED_OUT, None)
    assert (result.num_partitions, result.configs) == (-1, [])
    assert "t" in broker.cluster.image.topics


def test_without_time_to_wait_validation_succeeds(broker: Broker) -> None:
    (result,) = ask(broker, topic("t"), timeout_ms=0, validate_only=True)
    assert result.error_code == ErrorCode.NONE


def test_an_existing_topic(broker: Broker) -> None:
    create(broker, "t1")
    assert refused(broker, topic("t1")) == (ErrorCode.TOPIC_ALREADY_EXISTS, "Topic 't1' already exists.")


def test_a_topic_named_twice_is_not_created(broker: Broker) -> None:
    results = ask(broker, topic("d"), topic("e"), topic("d"))
    message = "Found multiple entries for this topic."
    assert [(result.name, result.error_code, result.error_message) for result in results] == [
        ("d", ErrorCode.INVALID_REQUEST, message),
        ("e", ErrorCode.NONE, None),
        ("d", ErrorCode.INVALID_REQUEST, message),
    ]
    assert list(broker.cluster.image.topics) == ["e"]


def test_topics_of_one_request_that_collide(broker: Broker) -> None:
    first, second = ask(broker, topic("a_b"), topic("a.b"))
    assert first.error_code == ErrorCode.NONE
    assert second.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert second.error_message == "Topic 'a.b' collides with existing topics: a_b"


def test_the_metadata_topic_is_prohibited(broker: Broker) -> None:
    assert refused(broker, topic("__cluster_metadata")) == (
        ErrorCode.INVALID_REQUEST,
        "Creation of internal topic __cluster_metadata is prohibited.",
    )


def test_an_invalid_name(broker: Broker) -> None:
    assert refused(broker, topic("")) == (
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic name is invalid: the empty string is not allowed",
    )


def test_counts_and_factors(broker: Broker) -> None:
    larger = "Number of partitions must be larger than 0."
    assert refused(broker, topic("t", 0)) == (ErrorCode.INVALID_PARTITIONS, larger)
    assert refused(broker, topic("t", 1, 5)) == (
        ErrorCode.INVALID_REPLICATION_FACTOR,
        "Replication factor: 5 larger than available brokers: 1.",
    )


def test_counts_beside_an_assignment(broker: Broker) -> None:
    asked = topic("t", 1)
    asked.assignments = [CreatableReplicaAssignment(partition_index=0, broker_ids=[1])]
    code, _ = refused(broker, asked)
    assert code == ErrorCode.INVALID_REQUEST
    asked.num_partitions = -1
    (result,) = ask(broker, asked)
    assert (result.error_code, result.num_partitions, result.replication_factor) == (0, 1, 1)


def test_an_assignment_to_an_unknown_broker(broker: Broker) -> None:
    asked = topic("t")
    asked.assignments = [CreatableReplicaAssignment(partition_index=0, broker_ids=[1, 9])]
    assert refused(broker, asked) == (
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "Unknown broker(s) in replica assignment: 9.",
    )


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"x": "1"}, "Unknown topic config name: x"),
        (
            {"retention_ms": "-9"},
            "Invalid value -9 for configuration retention.ms: Value must be at least -1",
        ),
        ({"retention_ms": "abc"}, "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ({"retention_ms": None}, "Null value not supported for topic configs: retention.ms"),
        (
            {"cleanup_policy": "foo"},
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        ),
        (
            {"min_compaction_lag_ms": "10", "max_compaction_lag_ms": "5"},
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
        ),
    ],
)
def test_configs_that_are_refused(configs: dict[str, str | None], message: str, broker: Broker) -> None:
    assert refused(broker, topic("t", **configs)) == (ErrorCode.INVALID_CONFIG, message)


def test_a_created_topic_survives_a_restart() -> None:
    store = EmbeddedStore(None)
    broker = make_broker()
    broker.cluster = open_cluster(store)
    register(broker.cluster)
    create(broker, "t", 2, {"retention.ms": "9"})
    again = open_cluster(store)
    assert again.image.topics == broker.cluster.image.topics
