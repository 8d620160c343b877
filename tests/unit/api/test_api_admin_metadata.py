"""Metadata: what each version answers, and automatic creation. Compared with Apache Kafka 3.9.1."""

from dataclasses import replace
from typing import Any

import pytest
from admin_broker import CLUSTER_ID, call, changes, create, make_broker, run

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import BrokerImage
from kpy.wire import metadata
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker

LAST = 13
NOT_REQUESTED = -(2**31)
UNKNOWN_ID = b"\1" * 16


@pytest.fixture
def broker() -> Broker:
    return make_broker()


def named(*names: str | None) -> list[MetadataRequestTopic]:
    return [MetadataRequestTopic(name=name) for name in names]


def ask(
    broker: Broker,
    topics: list[MetadataRequestTopic] | None,
    version: int = LAST,
    *,
    listener: str = "PLAINTEXT",
    create_missing: bool = False,
    **options: Any,
) -> MetadataResponse:
    request = MetadataRequest(topics=topics, allow_auto_topic_creation=create_missing, **options)
    response: MetadataResponse = call(broker, metadata, request, version, listener)
    return response


def errors(response: MetadataResponse) -> dict[str | None, int]:
    return {topic.name: topic.error_code for topic in response.topics}


@pytest.mark.parametrize("version", range(LAST + 1))
def test_each_version_describes_a_topic(version: int, broker: Broker) -> None:
    topic_id = create(broker, "t", 2)
    response = ask(broker, named("t"), version)
    assert response.brokers == [MetadataResponseBroker(1, "localhost", 9092, None)]
    assert response.controller_id == (1 if version >= 1 else -1)
    assert response.cluster_id == (CLUSTER_ID if version >= 2 else None)
    (topic,) = response.topics
    assert (topic.error_code, topic.name, topic.is_internal) == (0, "t", False)
    assert topic.topic_id == (topic_id if version >= 10 else ZERO_ID)
    assert [partition.partition_index for partition in topic.partitions] == [0, 1]
    for partition in topic.partitions:
        assert (partition.error_code, partition.leader_id) == (0, 1)
        assert partition.leader_epoch == (0 if version >= 7 else -1)
        assert (partition.replica_nodes, partition.isr_nodes, partition.offline_replicas) == ([1], [1], [])


def test_no_topics_asked_means_all_in_version_0_and_none_later(broker: Broker) -> None:
    create(broker, "a")
    create(broker, "b")
    assert list(errors(ask(broker, [], 0))) == ["a", "b"]
    assert errors(ask(broker, [], 1)) == {}
    assert list(errors(ask(broker, None, 1))) == ["a", "b"]
    assert list(errors(ask(broker, None))) == ["a", "b"]


def test_internal_topics_are_marked(broker: Broker) -> None:
    run(broker.cluster.create_internal_topic("__consumer_offsets", 1, 1, {}))
    assert ask(broker, None).topics[0].is_internal
    (missing,) = ask(broker, named("__transaction_state")).topics
    assert (missing.error_code, missing.is_internal) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, True)


def test_a_topic_named_twice_is_answered_once(broker: Broker) -> None:
    create(broker, "t")
    assert len(ask(broker, named("t", "t")).topics) == 1


def test_topics_are_asked_for_by_id_from_version_12(broker: Broker) -> None:
    topic_id = create(broker, "t")
    asked = [MetadataRequestTopic(topic_id, None), MetadataRequestTopic(UNKNOWN_ID, None)]
    known, unknown = ask(broker, asked, 12).topics
    assert (known.error_code, known.name, known.topic_id) == (0, "t", topic_id)
    assert (unknown.error_code, unknown.name, unknown.topic_id) == (ErrorCode.UNKNOWN_TOPIC_ID, None, UNKNOWN_ID)


def test_neither_name_nor_id_is_an_unknown_id(broker: Broker) -> None:
    (topic,) = ask(broker, named(None), 12).topics
    assert (topic.error_code, topic.name) == (ErrorCode.UNKNOWN_TOPIC_ID, None)


@pytest.mark.parametrize(
    ("version", "asked", "name"),
    [(10, MetadataRequestTopic(UNKNOWN_ID, "t"), "t"), (11, MetadataRequestTopic(ZERO_ID, None), "")],
)
def test_ids_and_null_names_refuse_the_whole_request_before_version_12(
    version: int, asked: MetadataRequestTopic, name: str, broker: Broker
) -> None:
    create(broker, "t")
    response = ask(broker, [asked, *named("t")], version)
    assert (response.brokers, response.cluster_id, response.controller_id) == ([], None, -1)
    assert [(topic.name, topic.error_code) for topic in response.topics] == [
        (name, ErrorCode.INVALID_REQUEST),
        ("t", ErrorCode.INVALID_REQUEST),
    ]


def test_missing_topics_are_not_created_when_the_client_does_not_want_it(broker: Broker) -> None:
    response = ask(broker, named("nope", "b d", ""))
    assert errors(response) == {
        "nope": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        "b d": ErrorCode.INVALID_TOPIC_EXCEPTION,
        "": ErrorCode.INVALID_TOPIC_EXCEPTION,
    }
    assert all(topic.topic_id == ZERO_ID and topic.partitions == [] for topic in response.topics)
    assert broker.cluster.image.topics == {}


def test_missing_topics_are_not_created_when_the_broker_does_not_allow_it() -> None:
    broker = make_broker(auto_create_topics_enable="false")
    response = ask(broker, named("nope"), create_missing=True)
    assert errors(response) == {"nope": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    assert broker.cluster.image.topics == {}


def test_missing_topics_are_created_and_answered_complete() -> None:
    broker = make_broker(num_partitions="3")
    before = changes(broker)
    response = ask(broker, named("a", "b"), create_missing=True)
    assert errors(response) == {"a": 0, "b": 0}
    for topic in response.topics:
        assert topic.name is not None
        assert topic.topic_id == broker.cluster.image.topics[topic.name].topic_id
        assert [partition.leader_id for partition in topic.partitions] == [1, 1, 1]
    assert changes(broker) == before + 1
    assert ask(broker, named("a", "b"), create_missing=True).topics == response.topics
    assert changes(broker) == before + 1


@pytest.mark.parametrize("version", range(4))
def test_clients_before_version_4_always_create(version: int, broker: Broker) -> None:
    assert errors(ask(broker, named("t"), version)) == {"t": 0}


def test_asking_for_all_topics_creates_none(broker: Broker) -> None:
    assert ask(broker, None, create_missing=True).topics == []
    assert ask(broker, [], 0, create_missing=True).topics == []


def test_an_unknown_id_creates_nothing(broker: Broker) -> None:
    response = ask(broker, [MetadataRequestTopic(UNKNOWN_ID, None)], create_missing=True)
    assert errors(response) == {None: ErrorCode.UNKNOWN_TOPIC_ID}
    assert broker.cluster.image.topics == {}


def test_topics_that_cannot_be_created_do_not_stop_the_others(broker: Broker) -> None:
    response = ask(broker, named("b d", "a_b", "a.b", "ok"), create_missing=True)
    assert errors(response) == {
        "b d": ErrorCode.INVALID_TOPIC_EXCEPTION,
        "a_b": 0,
        "a.b": ErrorCode.INVALID_TOPIC_EXCEPTION,
        "ok": 0,
    }


def test_more_replicas_than_brokers_cannot_be_created() -> None:
    broker = make_broker(default_replication_factor="3")
    broker.config.__dict__["default_replication_factor"] = 3  # The configuration itself limits it to one broker.
    response = ask(broker, named("t"), create_missing=True)
    assert errors(response) == {"t": ErrorCode.INVALID_REPLICATION_FACTOR}


def test_internal_topics_are_created_as_their_coordinators_need_them() -> None:
    broker = make_broker(offsets_topic_num_partitions="4", transaction_state_log_num_partitions="2", num_partitions="9")
    ask(broker, named("__consumer_offsets", "__transaction_state"), create_missing=True)
    offsets, transactions = broker.cluster.image.topics.values()
    assert (offsets.name, len(offsets.partitions)) == ("__consumer_offsets", 4)
    assert offsets.configs == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
        "segment.bytes": "104857600",
    }
    assert (transactions.name, len(transactions.partitions)) == ("__transaction_state", 2)
    assert transactions.configs == {
        "cleanup.policy": "compact",
        "compression.type": "uncompressed",
        "min.insync.replicas": "1",
        "segment.bytes": "104857600",
        "unclean.leader.election.enable": "false",
    }


def test_authorized_operations_are_told_only_when_asked_for(broker: Broker) -> None:
    create(broker, "t")
    silent = ask(broker, named("t"), 10)
    assert silent.topics[0].topic_authorized_operations == NOT_REQUESTED
    assert silent.cluster_authorized_operations == NOT_REQUESTED
    told = ask(
        broker,
        named("t"),
        10,
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    assert told.topics[0].topic_authorized_operations == 3576
    assert told.cluster_authorized_operations == 8096


def with_other_broker(broker: Broker, **endpoints: tuple[str, int]) -> None:
    """Adds live broker 2 with the given listeners to the image, and makes it lead a topic "theirs"."""
    image = broker.cluster.image
    topic = image.topics["theirs"]
    partition = replace(topic.partitions[0], leader=2, leader_epoch=3, replicas=(2, 1), isr=(2, 1))
    broker.cluster.image = replace(
        image,
        brokers={**image.brokers, 2: BrokerImage(2, "r2", endpoints)},
        topics={**image.topics, "theirs": replace(topic, partitions=(partition,))},
    )


def test_brokers_have_the_address_of_the_clients_listener(broker: Broker) -> None:
    create(broker, "theirs")
    with_other_broker(broker, PLAINTEXT=("two", 1), OTHER=("two.other", 2))
    assert ask(broker, []).brokers == [
        MetadataResponseBroker(1, "localhost", 9092, None),
        MetadataResponseBroker(2, "two", 1, "r2"),
    ]
    assert ask(broker, [], listener="OTHER").brokers == [MetadataResponseBroker(2, "two.other", 2, "r2")]


@pytest.mark.parametrize(
    ("version", "code"),
    [(1, ErrorCode.LEADER_NOT_AVAILABLE), (5, ErrorCode.LEADER_NOT_AVAILABLE), (6, ErrorCode.LISTENER_NOT_FOUND)],
)
def test_a_leader_without_the_clients_listener(version: int, code: ErrorCode, broker: Broker) -> None:
    create(broker, "theirs")
    with_other_broker(broker, OTHER=("two.other", 2))
    (partition,) = ask(broker, named("theirs"), version).topics[0].partitions
    assert (partition.error_code, partition.leader_id) == (code, -1)
    assert partition.replica_nodes == [2, 1]
    assert partition.offline_replicas == ([2] if version >= 5 else [])


def test_a_partition_without_a_leader(broker: Broker) -> None:
    create(broker, "theirs")
    with_other_broker(broker)
    broker.cluster.image = replace(broker.cluster.image, brokers={1: broker.cluster.image.brokers[1]})
    (partition,) = ask(broker, named("theirs")).topics[0].partitions
    assert (partition.error_code, partition.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
    assert partition.leader_epoch == 3
    assert partition.offline_replicas == [2]


def test_version_0_leaves_out_replicas_that_are_down(broker: Broker) -> None:
    create(broker, "theirs")
    image = broker.cluster.image
    topic = image.topics["theirs"]
    partition = replace(topic.partitions[0], replicas=(1, 2), isr=(1, 2))
    broker.cluster.image = replace(image, topics={"theirs": replace(topic, partitions=(partition,))})
    (old,) = ask(broker, named("theirs"), 0).topics[0].partitions
    assert (old.error_code, old.leader_id) == (ErrorCode.REPLICA_NOT_AVAILABLE, 1)
    assert (old.replica_nodes, old.isr_nodes) == ([1], [1])
    (new,) = ask(broker, named("theirs"), 1).topics[0].partitions
    assert (new.error_code, new.replica_nodes, new.isr_nodes) == (0, [1, 2], [1, 2])
