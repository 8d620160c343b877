"""CreatePartitions: growing topics, with Apache Kafka 3.9.1's codes and texts."""

import pytest
from admin_broker import call, changes, create, make_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.wire import create_partitions
from kpy.wire.create_partitions import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)


@pytest.fixture
def broker() -> Broker:
    broker = make_broker()
    create(broker, "t", 2)
    return broker


def growth(name: str, count: int, *assignments: list[int]) -> CreatePartitionsTopic:
    manual = [CreatePartitionsAssignment(broker_ids=hosts) for hosts in assignments]
    return CreatePartitionsTopic(name=name, count=count, assignments=manual or None)


def ask(
    broker: Broker,
    *topics: CreatePartitionsTopic,
    version: int = 3,
    timeout_ms: int = 1000,
    validate_only: bool = False,
) -> list[tuple[str, int, str | None]]:
    request = CreatePartitionsRequest(topics=list(topics), timeout_ms=timeout_ms, validate_only=validate_only)
    results: list[CreatePartitionsTopicResult] = call(broker, create_partitions, request, version).results
    return [(result.name, result.error_code, result.error_message) for result in results]


def partitions(broker: Broker, name: str) -> int:
    return len(broker.cluster.image.topics[name].partitions)


@pytest.mark.parametrize("version", range(4))
def test_each_version_grows_a_topic(version: int, broker: Broker) -> None:
    assert ask(broker, growth("t", 5), version=version) == [("t", ErrorCode.NONE, None)]
    assert partitions(broker, "t") == 5


def test_partitions_are_placed_by_hand(broker: Broker) -> None:
    assert ask(broker, growth("t", 3, [1])) == [("t", ErrorCode.NONE, None)]
    assert broker.cluster.image.topics["t"].partitions[2].replicas == (1,)


def test_several_topics_are_one_change(broker: Broker) -> None:
    create(broker, "u")
    before = changes(broker)
    results = ask(broker, growth("t", 3), growth("none", 3), growth("u", 3))
    assert [code for _, code, _ in results] == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0]
    assert (partitions(broker, "t"), partitions(broker, "u")) == (3, 3)
    assert changes(broker) == before + 1


def test_validate_only_changes_nothing(broker: Broker) -> None:
    before = broker.cluster.image
    assert ask(broker, growth("t", 3), validate_only=True) == [("t", ErrorCode.NONE, None)]
    assert ask(broker, growth("t", 3), validate_only=True, timeout_ms=0) == [("t", ErrorCode.NONE, None)]
    assert broker.cluster.image is before


def test_without_time_to_wait_the_topic_grows_and_is_timed_out(broker: Broker) -> None:
    assert ask(broker, growth("t", 3), timeout_ms=0) == [("t", ErrorCode.REQUEST_TIMED_OUT, None)]
    assert partitions(broker, "t") == 3


def test_a_topic_named_twice_has_one_answer(broker: Broker) -> None:
    message = "Duplicate topic in request."
    assert ask(broker, growth("t", 3), growth("t", 4)) == [("t", ErrorCode.INVALID_REQUEST, message)]
    assert partitions(broker, "t") == 2


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (growth("none", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'none' does not exist."),
        (growth("t", 2), ErrorCode.INVALID_PARTITIONS, "Topic already has 2 partitions."),
        (
            growth("t", 1),
            ErrorCode.INVALID_PARTITIONS,
            "Topic currently has 2 partitions, which is higher than the requested 1.",
        ),
        (
            growth("t", 4, [1]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Increasing the number of partitions by 2 but 1 assignments provided.",
        ),
        (
            growth("t", 3, [9]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Unknown broker(s) in replica assignment: 9.",
        ),
    ],
)
def test_growth_that_is_refused(asked: CreatePartitionsTopic, code: ErrorCode, message: str, broker: Broker) -> None:
    before = broker.cluster.image
    assert ask(broker, asked) == [(asked.name, code, message)]
    assert broker.cluster.image is before
