"""Three brokers are one cluster: two Apache Kafka brokers with a kpy broker under a controller of either kind, and
three kpy brokers.

What is asserted is what users rely on: acknowledged records of acks=all are in the logs of all replicas, batch for
batch the same bytes, and the ISR is whole again after each restart.
"""

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from compat.differential.apache_kafka import ZOOKEEPER_MODE as KAFKA
from compat.harness import BACKENDS, unique, wait_until
from compat.replication.cluster import Cluster, cluster_in
from compat.replication.load import Load, read_all

ALL = {1, 2, 3}
RECORDS = 3_000
ASSIGNMENT = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
"""Each leads one partition, and follows the others in two."""
KPY = BACKENDS["kpy"]
KINDS = {"kpy-joins": [KAFKA, KAFKA, KPY], "kpy-controls": [KPY, KAFKA, KAFKA], "kpy": [KPY, KPY, KPY]}
"""The first is the controller."""


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp(request.param)) as started:
        started.start_all(dict(enumerate(KINDS[request.param], start=1)))
        yield started


def test_each_follows_the_others_and_all_logs_are_the_same(cluster: Cluster) -> None:
    topic = unique("equal")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=1)
    assert cluster.leaders(topic, asking=1) == {0: 1, 1: 2, 2: 3}
    load = Load(cluster, topic)
    load.send(0, RECORDS)
    load.finish()
    assert not load.failed
    assert len(load.acknowledged) == RECORDS
    for partition in range(len(ASSIGNMENT)):
        batches = cluster.wait_until_equal(topic, partition, ASSIGNMENT[partition])
        assert batches[-1].last_offset == RECORDS // len(ASSIGNMENT) - 1
    assert read_all(cluster, topic) == load.acknowledged
    assert cluster.isrs(topic, asking=3) == cluster.isrs(topic, asking=1) == dict.fromkeys(range(3), ALL)


@pytest.mark.parametrize("stop", ["stop", "kill"])
@pytest.mark.parametrize("broker_id", [3, 2, 1])
def test_nothing_acknowledged_is_lost_when_a_broker_comes_and_goes(cluster: Cluster, broker_id: int, stop: str) -> None:
    topic = unique("restart")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=1)
    with Load(cluster, topic) as load:
        broker = cluster.brokers[broker_id]
        if stop == "stop":
            broker.stop()
        else:
            broker.kill()
        asking = 3 if broker_id == 1 else 1
        cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL - {broker_id}, asking)
        cluster.start(broker_id)
        cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking)
    assert not load.failed
    for partition in range(len(ASSIGNMENT)):
        cluster.wait_until_equal(topic, partition, ASSIGNMENT[partition])
    found = read_all(cluster, topic)
    assert load.acknowledged.items() <= found.items()
    assert len(found) == len(load.acknowledged), "an idempotent producer leaves no record twice"


def test_a_deleted_topic_leaves_nothing_on_any_broker(cluster: Cluster) -> None:
    topic = unique("deleted")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, len(ASSIGNMENT), ALL, asking=3)
    admin = AdminClient({"bootstrap.servers": cluster.brokers[1].bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    data_dirs = [broker.data_dir for broker in cluster.brokers.values()]
    wait_until(
        lambda: not any((data_dir / f"{topic}-{index}").exists() for data_dir in data_dirs for index in range(3)),
        f"{topic} is gone from {data_dirs}",
    )
