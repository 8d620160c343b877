"""DeleteTopics: by name and by id, and each refusal of Apache Kafka 3.9.1."""

import pytest
from admin_broker import call, changes, create, make_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.wire import delete_topics
from kpy.wire.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicState

UNKNOWN_ID = b"\1" * 16


@pytest.fixture
def broker() -> Broker:
    return make_broker()


def ask(
    broker: Broker, *topics: tuple[str | None, bytes], version: int = 6, timeout_ms: int = 1000
) -> list[DeletableTopicResult]:
    request = DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name, topic_id=topic_id) for name, topic_id in topics],
        topic_names=[name for name, _ in topics if name is not None],
        timeout_ms=timeout_ms,
    )
    responses: list[DeletableTopicResult] = call(broker, delete_topics, request, version).responses
    return responses


@pytest.mark.parametrize("version", range(7))
def test_each_version_deletes_by_name(version: int, broker: Broker) -> None:
    create(broker, "t")
    create(broker, "stays")
    (result,) = ask(broker, ("t", ZERO_ID), version=version)
    assert (result.name, result.topic_id, result.error_code) == ("t", ZERO_ID, ErrorCode.NONE)
    assert list(broker.cluster.image.topics) == ["stays"]


def test_deleting_by_id_answers_the_name(broker: Broker) -> None:
    topic_id = create(broker, "t")
    (result,) = ask(broker, (None, topic_id))
    assert (result.name, result.topic_id, result.error_code) == ("t", topic_id, ErrorCode.NONE)
    assert broker.cluster.image.topics == {}


def test_several_topics_are_one_change(broker: Broker) -> None:
    create(broker, "a")
    create(broker, "b")
    before = changes(broker)
    results = ask(broker, ("a", ZERO_ID), ("none", ZERO_ID), ("b", ZERO_ID))
    assert [result.error_code for result in results] == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, 0]
    assert broker.cluster.image.topics == {}
    assert changes(broker) == before + 1


def test_unknown_names_and_ids(broker: Broker) -> None:
    by_name, by_id = ask(broker, ("none", ZERO_ID), (None, UNKNOWN_ID))
    assert (by_name.name, by_name.error_code) == ("none", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    assert (by_id.name, by_id.topic_id, by_id.error_code) == (None, UNKNOWN_ID, ErrorCode.UNKNOWN_TOPIC_ID)
    assert by_name.error_message is None


def test_neither_name_nor_id(broker: Broker) -> None:
    create(broker, "t")
    (result,) = ask(broker, (None, ZERO_ID))
    assert result.error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_name_and_id_together_refuse_the_whole_request(broker: Broker) -> None:
    topic_id = create(broker, "t")
    results = ask(broker, ("t", topic_id), ("t", ZERO_ID))
    assert [(result.name, result.topic_id, result.error_code) for result in results] == [
        ("t", topic_id, ErrorCode.INVALID_REQUEST),
        ("t", ZERO_ID, ErrorCode.INVALID_REQUEST),
    ]
    assert "t" in broker.cluster.image.topics


def test_a_topic_named_twice_has_two_answers(broker: Broker) -> None:
    create(broker, "t")
    assert [result.error_code for result in ask(broker, ("t", ZERO_ID), ("t", ZERO_ID))] == [0, 0]
    assert broker.cluster.image.topics == {}


def test_without_time_to_wait_the_topic_is_deleted_and_timed_out(broker: Broker) -> None:
    create(broker, "t")
    (result,) = ask(broker, ("t", ZERO_ID), timeout_ms=0)
    assert result.error_code == ErrorCode.REQUEST_TIMED_OUT
    assert broker.cluster.image.topics == {}


@pytest.mark.parametrize(
    ("version", "code"),
    [(2, ErrorCode.INVALID_REQUEST), (3, ErrorCode.TOPIC_DELETION_DISABLED), (6, ErrorCode.TOPIC_DELETION_DISABLED)],
)
def test_deletion_can_be_disabled(version: int, code: ErrorCode) -> None:
    broker = make_broker(delete_topic_enable="false")
    create(broker, "t")
    (result,) = ask(broker, ("t", ZERO_ID), version=version)
    assert (result.name, result.error_code) == ("t", code)
    assert "t" in broker.cluster.image.topics
