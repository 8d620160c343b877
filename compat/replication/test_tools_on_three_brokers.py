"""Apache Kafka 3.9.1's tools on three kpy brokers: what they move, elect, delete and verify."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from compat.harness import BACKENDS, unique, wait_until
from compat.java.kafka_tools import KafkaTools
from compat.replication.cluster import Cluster, cluster_in
from compat.replication.load import Load, read_all

ALL = {1, 2, 3}
ASSIGNMENT = [[1, 2], [2, 3], [3, 1]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("tools")) as started:
        for broker_id in (1, 2, 3):
            started.start(broker_id, BACKENDS["kpy"])
        yield started


@pytest.fixture
def tools(cluster: Cluster) -> KafkaTools:
    return KafkaTools("3.9.1", cluster.bootstrap)


def filled(cluster: Cluster, prefix: str) -> Load:
    """A topic of its own with records in it."""
    topic = unique(prefix)
    cluster.create_topic(topic, ASSIGNMENT)
    load = Load(cluster, topic)
    load.send(0, 3_000)
    load.finish()
    assert len(load.acknowledged) == 3_000
    return load


def test_replicas_are_moved_and_moves_called_off(cluster: Cluster, tools: KafkaTools, tmp_path: Path) -> None:
    load = filled(cluster, "moved")
    topic = load.topic
    plan = tmp_path / "plan.json"
    targets = [[3, 2], [1, 3], [2, 1]]
    partitions = [{"topic": topic, "partition": index, "replicas": each} for index, each in enumerate(targets)]
    plan.write_text(json.dumps({"version": 1, "partitions": partitions}))
    with load:
        started = tools.run("reassign-partitions", "--reassignment-json-file", str(plan), "--execute")
        assert "Successfully started partition reassignments" in started.stdout
        wait_until(
            lambda: cluster.isrs(topic, asking=2) == {0: {2, 3}, 1: {1, 3}, 2: {1, 2}},
            "the replicas have moved",
            timeout_s=60,
        )
    verified = tools.run("reassign-partitions", "--reassignment-json-file", str(plan), "--verify")
    assert verified.stdout.count("is completed.") == 3
    assert "No partition reassignments found." in tools.run("reassign-partitions", "--list").stdout
    gone = [(1, 0), (2, 1), (3, 2)]
    wait_until(
        lambda: not any((cluster.brokers[broker].data_dir / f"{topic}-{index}").exists() for broker, index in gone),
        "those who lost a replica have deleted it",
    )
    assert not load.failed
    assert read_all(cluster, topic) == load.acknowledged
    refused = tools.run("reassign-partitions", "--reassignment-json-file", str(plan), "--cancel")
    assert "None of the specified partition reassignments are active." in refused.stdout


def test_preferred_leaders_are_elected(cluster: Cluster, tools: KafkaTools) -> None:
    topic = unique("preferred")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.brokers[2].restart()
    wait_until(lambda: cluster.isrs(topic, asking=1) == {0: {1, 2}, 1: {2, 3}, 2: {1, 3}}, "the ISR is whole", 60)
    assert cluster.leaders(topic, asking=1) == {0: 1, 1: 3, 2: 3}
    elect = ["--election-type", "preferred", "--topic", topic, "--partition"]
    assert "Successfully completed leader election" in tools.run("leader-election", *elect, "1").stdout
    assert cluster.leaders(topic, asking=3) == {0: 1, 1: 2, 2: 3}
    assert "Valid replica already elected" in tools.run("leader-election", *elect, "1").stdout


def test_an_unclean_leader_is_elected_where_nobody_else_is_left(cluster: Cluster, tools: KafkaTools) -> None:
    topic = unique("unclean")
    cluster.create_topic(topic, [[2, 3]])
    cluster.brokers[3].kill()
    wait_until(lambda: cluster.isrs(topic, asking=1) == {0: {2}}, "broker 3 is out of the ISR", 60)
    cluster.brokers[2].kill()
    wait_until(lambda: cluster.leaders(topic, asking=1) == {0: -1}, "nobody leads", 60)
    cluster.start(3)
    elect = ["--election-type", "unclean", "--topic", topic, "--partition", "0"]
    assert "Successfully completed leader election" in tools.run("leader-election", *elect).stdout
    assert cluster.leaders(topic, asking=1) == {0: 3}
    cluster.start(2)
    wait_until(lambda: cluster.isrs(topic, asking=1) == {0: {2, 3}}, "the ISR is whole", 60)


def test_records_are_deleted_on_all_replicas(cluster: Cluster, tools: KafkaTools, tmp_path: Path) -> None:
    load = filled(cluster, "deleted")
    offsets = tmp_path / "offsets.json"
    partitions = [{"topic": load.topic, "partition": index, "offset": 400} for index in range(3)]
    offsets.write_text(json.dumps({"version": 1, "partitions": partitions}))
    deleted = tools.run("delete-records", "--offset-json-file", str(offsets))
    assert deleted.stdout.count("low_watermark: 400") == 3
    expected = {key: value for key, value in load.acknowledged.items() if key[1] >= 400}
    assert read_all(cluster, load.topic) == expected


def test_directories_and_configs_of_all_brokers_are_described(cluster: Cluster, tools: KafkaTools) -> None:
    load = filled(cluster, "described")
    described = tools.run("log-dirs", "--describe", "--topic-list", load.topic, "--broker-list", "1,2,3")
    brokers = json.loads(described.lines[-1])["brokers"]
    found = {
        (broker["broker"], partition["partition"])
        for broker in brokers
        for log_dir in broker["logDirs"]
        for partition in log_dir["partitions"]
    }
    expected = {(broker, f"{load.topic}-{index}") for index, replicas in enumerate(ASSIGNMENT) for broker in replicas}
    assert found == expected
    entity = ["--entity-type", "topics", "--entity-name", load.topic]
    tools.run("configs", "--alter", *entity, "--add-config", "retention.ms=123456")
    for broker in cluster.brokers.values():
        here = KafkaTools("3.9.1", broker.bootstrap)
        wait_until(lambda here=here: "retention.ms=123456" in here.run("configs", "--describe", *entity).stdout, "seen")


def test_all_replicas_are_verified_to_be_the_same(cluster: Cluster, tools: KafkaTools) -> None:
    load = filled(cluster, "verified")
    for partition in range(len(ASSIGNMENT)):
        cluster.wait_until_equal(load.topic, partition, ASSIGNMENT[partition])
    process = tools.start("replica-verification", "--topics-include", load.topic, "--report-interval-ms", "1000")
    try:
        reports = (line for line in process.stdout or () if "max lag is" in line)
        assert "max lag is 0 for partition" in [next(reports) for _ in range(2)][-1]
    finally:
        process.kill()
        process.communicate()
