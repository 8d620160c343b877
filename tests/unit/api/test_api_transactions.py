"""What the APIs around transactions answer beside the machine's words: features, producers, filtered lists."""

from pathlib import Path
from typing import Any

import pytest
from admin_broker import call
from log_broker import NOW_MS, open_broker

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.produce import produce
from kpy.errors import ErrorCode
from kpy.records.batch import NewRecord, build_batch
from kpy.wire import api_versions, create_topics, describe_producers, find_coordinator, init_producer_id
from kpy.wire import list_transactions as list_transactions_codec
from kpy.wire.api_versions import ApiVersionsRequest
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.describe_producers import DescribeProducersRequest, TopicRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.list_transactions import ListTransactionsRequest
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with open_broker(tmp_path, settings={"listeners": "PLAINTEXT://localhost:0"}) as broker:
        call(broker, create_topics, CreateTopicsRequest([CreatableTopic("t", 1, 1)], 1000), 5)
        yield broker


def write(broker: Broker, acks: int = -1, transactional_id: str | None = None, **options: Any) -> Any:
    records = build_batch([NewRecord(NOW_MS, b"k", b"v")], producer_id=7, producer_epoch=0, base_sequence=0, **options)
    topic = TopicProduceData("t", bytes(16), [PartitionProduceData(0, memoryview(records))])
    client = Client("127.0.0.1", "PLAINTEXT")
    client.version = 9
    answer: Any = produce(ProduceRequest(transactional_id, acks, 1000, [topic]), client, broker)
    return answer.responses[0].partition_responses[0].error_code


@pytest.mark.parametrize("version", [3, 4])
def test_the_cluster_works_with_transaction_version_2(broker: Broker, version: int) -> None:
    """KIP-890. Only version 4 has the supported range: older Java clients fail on one from 0 (KAFKA-17492)."""
    answer = call(broker, api_versions, ApiVersionsRequest("test", "1"), version)
    assert [(each.name, each.max_version_level) for each in answer.finalized_features] == [("transaction.version", 2)]
    assert answer.finalized_features_epoch == 0
    supported = [(each.name, each.min_version, each.max_version) for each in answer.supported_features]
    assert supported == ([("transaction.version", 0, 2)] if version == 4 else [])


def test_coordinators_of_transactions_are_found(broker: Broker) -> None:
    answer = call(broker, find_coordinator, FindCoordinatorRequest("", 1, ["a", "b"]), 6)
    assert [(each.key, each.error_code, each.node_id) for each in answer.coordinators] == [("a", 0, 1), ("b", 0, 1)]
    state = broker.cluster.image.topics["__transaction_state"]
    assert state.configs["cleanup.policy"] == "compact"


def test_nobody_coordinates_before_somebody_has_asked_for_the_coordinator(broker: Broker) -> None:
    answer = call(broker, init_producer_id, InitProducerIdRequest("tx", 1000, -1, -1), 5)
    assert answer.error_code == ErrorCode.NOT_COORDINATOR


def test_writers_are_described(broker: Broker) -> None:
    assert write(broker) == 0
    topics = [TopicRequest("t", [0, 1]), TopicRequest("none", [0]), TopicRequest("not a name", [0])]
    answer = call(broker, describe_producers, DescribeProducersRequest(topics), 0)
    (first, second), (unknown,), (wrong,) = ([*topic.partitions] for topic in answer.topics)
    (producer,) = first.active_producers
    assert (producer.producer_id, producer.producer_epoch, producer.last_sequence) == (7, 0, 0)
    assert (producer.last_timestamp, producer.coordinator_epoch, producer.current_txn_start_offset) == (NOW_MS, -1, -1)
    assert (second.error_code, unknown.error_code) == (3, 3)
    assert wrong.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_lists_are_filtered(broker: Broker) -> None:
    call(broker, find_coordinator, FindCoordinatorRequest("", 1, ["a"]), 6)
    ids = {}
    for name in ("a", "b"):
        ids[name] = call(broker, init_producer_id, InitProducerIdRequest(name, 1000, -1, -1), 5).producer_id

    def listed(**filters: Any) -> list[str]:
        answer = call(broker, list_transactions_codec, ListTransactionsRequest(**filters), 1)
        assert answer.error_code == 0
        return sorted([*(each.transactional_id for each in answer.transaction_states), *answer.unknown_state_filters])

    assert listed() == ["a", "b"]
    assert listed(state_filters=["Empty"]) == ["a", "b"]
    assert listed(state_filters=["Ongoing", "Dead"]) == []
    assert listed(state_filters=["Empty", "Asleep"]) == ["Asleep", "a", "b"]
    assert listed(producer_id_filters=[ids["b"]]) == ["b"]
    # One that has not begun is as old as time itself, as in Apache Kafka.
    assert listed(duration_filter=60_000) == ["a", "b"]
    assert listed(duration_filter=NOW_MS + 1) == []


def test_lists_are_filtered_by_a_pattern_for_the_whole_id(broker: Broker) -> None:
    """KIP-1152."""
    names = ["order-1", "order-12", "return-1"]
    call(broker, find_coordinator, FindCoordinatorRequest("", 1, names), 6)
    ids = [call(broker, init_producer_id, InitProducerIdRequest(each, 1000, -1, -1), 5).producer_id for each in names]

    def listed(pattern: str | None, **filters: Any) -> list[str]:
        request = ListTransactionsRequest(transactional_id_pattern=pattern, **filters)
        answer = call(broker, list_transactions_codec, request, 2)
        assert answer.error_code == 0
        return sorted([*(each.transactional_id for each in answer.transaction_states), *answer.unknown_state_filters])

    assert listed(None) == listed("") == listed(".*") == names
    assert listed(r"order-\d") == ["order-1"]
    assert listed("order") == []
    assert listed("(?i)ORDER.*") == ["order-1", "order-12"]
    assert listed(".*-1", producer_id_filters=ids[1:], state_filters=["Empty", "Asleep"]) == ["Asleep", "return-1"]


def test_a_pattern_that_is_none_is_refused(broker: Broker) -> None:
    request = ListTransactionsRequest(transactional_id_pattern=r"(a)\1", state_filters=["Asleep"])
    answer = call(broker, list_transactions_codec, request, 2)
    assert (answer.error_code, answer.unknown_state_filters) == (ErrorCode.INVALID_REGULAR_EXPRESSION, [])


@pytest.mark.parametrize("acks", [1, -1])
def test_transactional_records_need_an_id_and_acks_of_all(broker: Broker, acks: int) -> None:
    forbidden = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert write(broker, acks, None, transactional=True) == forbidden
    if acks == 1:
        assert write(broker, acks, "tx", transactional=True) == ErrorCode.INVALID_REQUIRED_ACKS
    else:
        # Nobody coordinates yet: the producer asks again.
        assert write(broker, acks, "tx", transactional=True) == ErrorCode.NOT_ENOUGH_REPLICAS
    assert broker.replicas.partition("t", 0).log.log_end_offset == 0
