"""Transactions where kpy and Apache Kafka coordinate and lead for each other: `make transactions-beside-kafka`.

Each of these passes; all of them in one process end now and then in a call of librdkafka that does not return after its
coordinator has been killed, and so they are not among the tests that run by themselves.
"""

from collections.abc import Iterator

import pytest
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

from compat.differential.apache_kafka import ZOOKEEPER_MODE
from compat.harness import BACKENDS, unique, wait_until
from compat.replication.cluster import Cluster, cluster_in
from compat.replication.test_transactions_across_brokers import (
    KPY,
    PARTITIONS,
    STATE_PARTITIONS,
    TIMEOUT_S,
    consumer_of,
    deletion_reaches_all,
    in_all_partitions,
    leaders_of,
    living_in,
    new_topic,
    offsets,
    process,
    producer_outlives,
    read_all,
    transactional_producer,
    transactions_of_all_coordinators,
    write,
)


@pytest.fixture(scope="module")
def beside_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("beside")) as started:
        started.start_all({1: ZOOKEEPER_MODE, 2: ZOOKEEPER_MODE, KPY: BACKENDS["kpy"]})
        yield started


@pytest.mark.parametrize("coordinator", [KPY, 2])
@pytest.mark.parametrize("stop", ["kill", "stop"])
def test_a_coordinator_is_followed_by_one_of_another_kind(beside_kafka: Cluster, stop: str, coordinator: int) -> None:
    """Or by one of its own kind, in the case of a broker of Apache Kafka's."""
    cluster = beside_kafka
    transactional_producer(cluster, unique("first"))
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.elect_leaders(
        ElectionType.PREFERRED, [TopicPartition("__transaction_state", index) for index in range(STATE_PARTITIONS)]
    )
    wait_until(lambda: coordinator in leaders_of(cluster, "__transaction_state", asking=1).values(), "it leads again")
    leaders = leaders_of(cluster, "__transaction_state", asking=1)
    state_partition = next(index for index, leader in leaders.items() if leader == coordinator)
    producer_outlives(cluster, coordinator, living_in(state_partition), stop)


def test_kpy_and_kafka_coordinate_each_others_partitions(beside_kafka: Cluster) -> None:
    transactions_of_all_coordinators(beside_kafka, new_topic(beside_kafka))


@pytest.mark.parametrize("group_partition", range(STATE_PARTITIONS))
def test_offsets_in_a_transaction_reach_a_group_of_another_broker(beside_kafka: Cluster, group_partition: int) -> None:
    cluster = beside_kafka
    source, sink = new_topic(cluster), new_topic(cluster)
    group = living_in(group_partition)
    for state_partition in range(STATE_PARTITIONS):
        producer = transactional_producer(cluster, living_in(state_partition))
        producer.begin_transaction()
        write(producer, source, str(state_partition))
        producer.commit_transaction(TIMEOUT_S)
        consumer = consumer_of(cluster, group)
        consumer.subscribe([source])
        process(consumer, producer, sink, PARTITIONS)
        consumer.close()
        # Its record and the marker, of each transaction so far.
        expected = [2 * state_partition + 1] * PARTITIONS
        wait_until(lambda expected=expected: offsets(cluster, source, group) == expected, "the offsets count")
    assert read_all(cluster, sink) == in_all_partitions(map(str, range(STATE_PARTITIONS)))


def test_deleted_records_are_gone_from_every_replica(beside_kafka: Cluster) -> None:
    deletion_reaches_all(beside_kafka)
