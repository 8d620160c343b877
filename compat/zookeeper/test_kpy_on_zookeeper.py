"""kpy with its metadata in a real ZooKeeper: what it writes there, and how it starts, elects and registers."""

import os
import re
import signal
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient

from compat.harness import BrokerProcess, unique, wait_until
from compat.kafka_python.clients import Clients, numbered, read, read_to_end, send_all, values_of
from compat.zookeeper.conftest import KpyCluster


def refused_start(broker: BrokerProcess) -> str:
    """What a broker says last that does not start."""
    try:
        broker.start()
    except AssertionError:
        return broker.log_text().strip().splitlines()[-1]
    raise AssertionError("it has started")


def test_clients_work_and_the_nodes_are_apache_kafkas(cluster: KpyCluster) -> None:
    broker = cluster.started(7, {"broker.rack": "r1"})
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t", partitions=2, configs={"retention.ms": "3600000"})
        send_all(clients.producer(), topic, numbered(10), partition=0)
        consumer = clients.consumer(topic, group_id=unique("group"))
        assert values_of(read(consumer, 10)) == numbered(10)
        topic_id = clients.admin().describe_topics([topic])[0]["topic_id"]
    registered = cluster.document("/brokers/ids/7")
    assert re.fullmatch(r"\d{13}", registered.pop("timestamp"))
    assert registered == {
        "version": 5,
        "host": "127.0.0.1",
        "port": broker.port,
        "endpoints": [f"PLAINTEXT://127.0.0.1:{broker.port}"],
        "listener_security_protocol_map": {"PLAINTEXT": "PLAINTEXT"},
        "rack": "r1",
        "jmx_port": -1,
        "features": {},
    }
    # Created empty and filled in one transaction, as by Apache Kafka.
    assert cluster.stat("/brokers/ids/7").version == 1
    assert cluster.stat("/brokers/ids/7").ephemeralOwner == cluster.stat("/controller").ephemeralOwner != 0
    controller = cluster.document("/controller")
    assert re.fullmatch(r"\d{13}", controller.pop("timestamp"))
    assert controller == {"version": 2, "brokerid": 7, "kraftControllerEpoch": -1}
    assert cluster.data("/controller_epoch") == b"1"
    assert cluster.document("/feature") == {"features": {}, "version": 2, "status": 1}
    assert cluster.document("/cluster/id")["version"] == "1"
    assert cluster.document(f"/brokers/topics/{topic}") == {
        "partitions": {"0": [7], "1": [7]},
        "topic_id": cluster.document(f"/brokers/topics/{topic}")["topic_id"],
        "adding_replicas": {},
        "removing_replicas": {},
        "version": 3,
    }
    assert topic_id is not None
    for partition in (0, 1):
        path = f"/brokers/topics/{topic}/partitions/{partition}"
        assert cluster.data(path) is None
        state = {"controller_epoch": 1, "leader": 7, "version": 1, "leader_epoch": 0, "isr": [7]}
        assert cluster.document(f"{path}/state") == state
    assert cluster.document(f"/config/topics/{topic}") == {"version": 1, "config": {"retention.ms": "3600000"}}
    for path in (
        "/brokers/topics",
        "/config/changes",
        "/admin/delete_topics",
        "/isr_change_notification",
        "/consumers",
    ):
        assert cluster.data(path) is None
    block = cluster.data("/latest_producer_id_block")
    assert block is None or cluster.document("/latest_producer_id_block")["broker"] == 7


def test_config_changes_are_written_with_a_note_for_java_brokers(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        clients.admin().alter_configs([ConfigResource("TOPIC", topic, {"retention.ms": "5000"})])
    assert cluster.document(f"/config/topics/{topic}")["config"]["retention.ms"] == "5000"
    assert cluster.document("/config/changes/config_change_0000000000") == {
        "version": 2,
        "entity_path": f"topics/{topic}",
    }


def test_configs_that_others_write_are_followed(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        cluster.put("/config/brokers/<default>", b'{"version":1,"config":{"log.retention.ms":"88888"}}')
        wait_until(lambda: retention_of(clients, topic) == "88888", "the topic follows the brokers' new default")
        cluster.put(f"/config/topics/{topic}", b'{"version":1,"config":{"retention.ms":"77777"}}')
        wait_until(lambda: retention_of(clients, topic) == "77777", "the topic has a config of its own")


def retention_of(clients: Clients, topic: str) -> str:
    described = clients.admin().describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
    value: str = described["retention.ms"]["value"]
    return value


def test_a_broker_that_was_stopped_or_killed_finds_its_topics_again(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        send_all(clients.producer(), topic, numbered(5))
    broker.stop()
    assert cluster.children("/brokers/ids") == []
    broker.start()
    assert cluster.data("/controller_epoch") == b"2"
    assert cluster.document(f"/brokers/topics/{topic}/partitions/0/state")["leader_epoch"] == 0
    epoch = cluster.stat("/brokers/ids/1").czxid
    broker.kill()
    # Its old session is not over yet: the next life waits for that.
    broker.start()
    assert cluster.stat("/brokers/ids/1").czxid > epoch
    assert cluster.document(f"/brokers/topics/{topic}/partitions/0/state")["leader_epoch"] == 1
    with Clients(broker.bootstrap) as clients:
        assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == numbered(5)
        assert send_all(clients.producer(), topic, numbered(1))[0].offset == 5


def test_a_second_broker_with_the_same_id_is_refused(cluster: KpyCluster) -> None:
    first = cluster.started(1)
    second = cluster.broker(1, name="twin")
    assert f"broker.id=1 is registered by another broker, at 127.0.0.1:{first.port}" in refused_start(second)


def test_a_data_directory_of_another_cluster_is_refused(cluster: KpyCluster) -> None:
    broker = cluster.broker(1, {"zookeeper.connect": cluster.connect + "/other"})
    broker.start()
    broker.stop()
    broker.settings["zookeeper.connect"] = cluster.connect
    line = refused_start(broker)
    here = cluster.document("/cluster/id")["id"]
    other = cluster.document("/other/cluster/id")["id"]
    assert line.endswith(f"{broker.data_dir} belongs to cluster {other}, this broker to {here}"), line
    assert cluster.children("/brokers/ids") == []


def test_without_a_zookeeper_the_broker_waits_and_then_says_so(cluster: KpyCluster) -> None:
    broker = cluster.broker(1, {"zookeeper.connect": "127.0.0.1:1", "zookeeper.connection.timeout.ms": "1000"})
    line = refused_start(broker)
    assert "ZooKeeper at 127.0.0.1:1 does not answer: no session within 1000 ms" in line
    assert "Traceback" not in broker.log_text()


def test_an_expired_session_is_replaced_and_the_broker_goes_on(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        send_all(clients.producer(), topic, numbered(3))
        epoch = cluster.stat("/brokers/ids/1").czxid
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            cluster.wait(lambda: cluster.children("/brokers/ids") == [], "the session of a paused broker expires")
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        cluster.wait(lambda: cluster.document("/controller"), "the broker stands for election again")
        cluster.wait(lambda: cluster.children("/brokers/ids") == ["1"], "the broker registers again")
        assert cluster.stat("/brokers/ids/1").czxid > epoch
        cluster.wait(lambda: cluster.data("/controller_epoch") == b"2", "another term of office")
        assert send_all(clients.producer(), topic, numbered(1))[0].offset == 3
        assert clients.topic("later")
    assert "has taken its place" in broker.log_text()


def test_when_the_controller_dies_another_broker_takes_over(cluster: KpyCluster) -> None:
    first, second = cluster.started(1), cluster.started(2)
    assert cluster.document("/controller")["brokerid"] == 1
    with Clients(second.bootstrap) as clients:
        cluster.wait(lambda: len(clients.admin().describe_cluster()["brokers"]) == 2, "both brokers are known")
        # Asked of the second broker, created by the first, with a replica on the second.
        on_second = unique("second")
        clients.admin().create_topics({on_second: {"assignments": {0: [2]}}}, wait_for_metadata=True)
        on_first = unique("first")
        clients.admin().create_topics({on_first: {"assignments": {0: [1]}}}, wait_for_metadata=True)
        send_all(clients.producer(), on_second, numbered(3))
        first.kill()
        cluster.wait(lambda: (cluster.document("/controller") or {}).get("brokerid") == 2, "the second is controller")
        assert cluster.data("/controller_epoch") == b"2"
        lost = f"/brokers/topics/{on_first}/partitions/0/state"
        cluster.wait(lambda: cluster.document(lost)["leader"] == -1, "what the dead broker led has no leader")
        assert cluster.document(lost) == {
            "controller_epoch": 2, "leader": -1, "version": 1, "leader_epoch": 1, "isr": [1]
        }  # fmt: skip
    with Clients(second.bootstrap) as clients:
        assert send_all(clients.producer(), on_second, numbered(1))[0].offset == 3
        assert clients.topic("after")
    first.start()
    cluster.wait(lambda: cluster.document(lost)["leader"] == 1, "it leads again when it is back")
    assert cluster.document(lost)["leader_epoch"] == 2


def test_an_automatic_topic_is_created_through_any_broker(cluster: KpyCluster) -> None:
    first, second = cluster.started(1), cluster.started(2)
    with Clients(f"{second.bootstrap}") as clients:
        topic = unique("automatic")
        assert send_all(clients.producer(), topic, numbered(1))[0].offset == 0
    assert cluster.document(f"/brokers/topics/{topic}/partitions/0/state")["controller_epoch"] == 1
    assert first.log_text().count("Traceback") == second.log_text().count("Traceback") == 0


def test_a_node_that_cannot_be_understood_is_named_and_costs_nothing(cluster: KpyCluster) -> None:
    broker = cluster.started(1)
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        send_all(clients.producer(), topic, numbered(3))
        good = cluster.data(f"/brokers/topics/{topic}")
        assert good is not None
        for damage in (b"not JSON", good.replace(b'"version":3', b'"version":4')):
            named = broker.log_text().count(f"holds at /brokers/topics/{topic} what cannot be understood")
            cluster.put(f"/brokers/topics/{topic}", damage)
            wait_until(
                lambda named=named: broker.log_text().count(f"holds at /brokers/topics/{topic} what") > named,
                "the damage is named",
            )
        cluster.put("/brokers/topics/garbage", b"{}")
        wait_until(lambda: "holds at /brokers/topics/garbage what" in broker.log_text(), "the new topic is named")
        assert send_all(clients.producer(), topic, numbered(1))[0].offset == 3
        assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [*numbered(3), *numbered(1)]
        cluster.put(f"/brokers/topics/{topic}", good)
        cluster.delete("/brokers/topics/garbage")
        assert topic in clients.admin().list_topics()


def logs_of(broker: BrokerProcess, topic: str) -> list[Path]:
    return [path for path in broker.data_dir.iterdir() if re.fullmatch(rf"{topic}-\d+", path.name)]


def test_zookeeper_may_die_and_come_back_under_a_running_broker(cluster: KpyCluster) -> None:
    broker = cluster.started(1, {"zookeeper.connection.timeout.ms": "2000"})
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("t")
        producer = clients.producer()
        send_all(producer, topic, numbered(3))
        cluster.server.kill()
        assert [answer.offset for answer in send_all(producer, topic, numbered(3))] == [3, 4, 5]
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            answer = admin.create_topics([unique("away")], raise_errors=False)
            assert "REQUEST_TIMED_OUT" in str(answer) or "7" in str(answer)
        cluster.server.start()
        cluster.server.wait()
        cluster.wait(lambda: cluster.document("/controller"), "there is a controller again")
        wait_until(lambda: try_to_create(broker), "topics can be created again")
        assert send_all(producer, topic, numbered(1))[0].offset == 6
    assert "Traceback" not in broker.log_text()
    assert len(logs_of(broker, topic)) == 1


def try_to_create(broker: BrokerProcess) -> bool:
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        answer = admin.create_topics([unique("back")], raise_errors=False)
    return "'error_code': 0" in str(answer)
