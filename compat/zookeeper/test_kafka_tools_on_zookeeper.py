"""The tools of Apache Kafka 2.8.2 that write to ZooKeeper behind the broker's back: `--zookeeper`."""

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
    assert cluster.document(f"/brokers/topics/{topic}") is None
    assert cluster.document(f"/config/topics/{topic}") is None
    assert cluster.children("/admin/delete_topics") == []
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
