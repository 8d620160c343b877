"""The tools of Apache Kafka 2.8.2 that write to ZooKeeper behind the broker's back: `--zookeeper`."""

import json
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import ConfigResource

from compat.harness import unique, wait_until
from compat.java.kafka_tools import Output
from compat.kafka_python.clients import Clients, numbered, read_to_end, send_all, values_of
from compat.zookeeper.conftest import KpyCluster

VERSION = "2.8.2"


def topics(cluster: KpyCluster, *arguments: str) -> Output:
    return cluster.tools(VERSION).run("topics", "--zookeeper", cluster.connect, *arguments)


def configs(cluster: KpyCluster, *arguments: str) -> Output:
    return cluster.tools(VERSION).run("configs", "--zookeeper", cluster.connect, *arguments)


def test_a_topic_is_created_altered_and_deleted_through_zookeeper(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    topic = unique("tool")
    topics(cluster, "--create", "--topic", topic, "--partitions", "1", "--replication-factor", "1")
    with Clients(broker.bootstrap) as clients:
        wait_until(lambda: topic in clients.admin().list_topics(), "the broker knows the topic")
        # The tool writes no id; the controller has given one.
        assert len(cluster.document(f"/brokers/topics/{topic}")["topic_id"]) == 22
        send_all(clients.producer(), topic, numbered(3))

        described = topics(cluster, "--describe", "--topic", topic)
        assert f"Topic: {topic}\tPartition: 0\tLeader: 1\tReplicas: 1\tIsr: 1" in described.stdout

        topic_id = cluster.document(f"/brokers/topics/{topic}")["topic_id"]
        topics(cluster, "--alter", "--topic", topic, "--partitions", "3")
        wait_until(lambda: len(clients.admin().describe_topics([topic])[0]["partitions"]) == 3, "three partitions")
        assert cluster.document(f"/brokers/topics/{topic}")["topic_id"] == topic_id
        assert send_all(clients.producer(), topic, numbered(1), partition=2)[0].offset == 0

        configs(
            cluster, "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=77777"
        )
        wait_until(lambda: retention_of(clients, topic) == "77777", "the broker has the new config")
        assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == numbered(3)

        assert list(broker.data_dir.glob(f"{topic}-?"))
        topics(cluster, "--delete", "--topic", topic)
        wait_until(lambda: topic not in clients.admin().list_topics(), "the topic is gone")
    # The brokers are told first. Then its nodes go, all at once.
    wait_until(lambda: cluster.children("/admin/delete_topics") == [], "the deletion is over")
    assert cluster.document(f"/brokers/topics/{topic}") is None
    assert cluster.document(f"/config/topics/{topic}") is None
    wait_until(lambda: not list(broker.data_dir.glob(f"{topic}-?")), "its logs are given up")


def retention_of(clients: Clients, topic: str) -> str:
    described = clients.admin().describe_configs([ConfigResource("TOPIC", topic)])["topic"][topic]
    value: str = described["retention.ms"]["value"]
    return value


def test_a_deletion_that_is_disabled_is_forgotten(cluster: KpyCluster) -> None:
    broker = cluster.started(1, {"delete.topic.enable": "false"})
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        topics(cluster, "--delete", "--topic", topic)
        wait_until(lambda: cluster.children("/admin/delete_topics") == [], "the request is gone")
        assert topic in clients.admin().list_topics()


def test_replicas_are_moved_and_leaders_elected_through_zookeeper(cluster: KpyCluster, tmp_path: Path) -> None:
    brokers = [cluster.started(broker_id) for broker_id in (1, 2, 3)]
    topic, lost = unique("moved"), unique("lost")
    # Broker 9 has never been; a partition whose replicas are all like that waits for one.
    topics(cluster, "--create", "--topic", topic, "--replica-assignment", "1:2,2:1,1:9")
    topics(cluster, "--create", "--topic", lost, "--replica-assignment", "8:9")

    def state(partition: int) -> dict[str, object]:
        found: dict[str, object] = cluster.document(f"/brokers/topics/{topic}/partitions/{partition}/state") or {}
        return found

    wait_until(lambda: state(2).get("isr") == [1] and state(1).get("isr") == [2, 1], "the topic has its leaders")
    with Clients(",".join(broker.bootstrap for broker in brokers)) as clients:
        send_all(clients.producer(), topic, numbered(5), partition=0)

    plan, elections = tmp_path / "plan.json", tmp_path / "elections.json"
    targets = {0: [3, 2], 1: [1, 2], 2: [2, 1]}
    moves = [{"topic": topic, "partition": index, "replicas": replicas} for index, replicas in targets.items()]
    plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    reassign = ("reassign-partitions", "--zookeeper", cluster.connect, "--reassignment-json-file", str(plan))
    assert "Successfully started partition reassignments" in cluster.tools(VERSION).run(*reassign, "--execute").stdout
    wait_until(lambda: cluster.document("/admin/reassign_partitions") is None, "the request is dealt with", 60)
    assert cluster.document(f"/brokers/topics/{topic}")["partitions"] == {"0": [3, 2], "1": [1, 2], "2": [2, 1]}
    assert state(0)["leader"] in (2, 3)
    verified = cluster.tools(VERSION).run(*reassign, "--verify").stdout
    assert verified.count("is complete") == 3

    assert state(1)["leader"] == 2
    wanted = [{"topic": topic, "partition": index} for index in (1, 2)]
    elections.write_text(json.dumps({"partitions": wanted}))
    elect = ("--zookeeper", cluster.connect, "--path-to-json-file", str(elections))
    cluster.tools(VERSION).run("preferred-replica-election", *elect)
    wait_until(lambda: cluster.document("/admin/preferred_replica_election") is None, "the election is over")
    assert f"{lost}-0 has no leader yet: none of its replicas [8, 9] lives" in brokers[0].log_text()
    assert state(1)["leader"] == 1
    assert state(2)["leader"] == 2
    with Clients(brokers[1].bootstrap) as clients:
        assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == numbered(5)
        assert lost not in clients.admin().list_topics()
    assert not any("Traceback" in broker.log_text() for broker in brokers)
