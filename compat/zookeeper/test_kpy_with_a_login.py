"""A ZooKeeper that lets nobody in without a login, and nodes that belong to it: kpy, and Apache Kafka 3.9.1 beside it
with the same JAAS file, as a system property there.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic, ResourceType
from kazoo.client import KazooClient

from compat.differential.apache_kafka import ZOOKEEPER_MODE
from compat.harness import BACKENDS, Backend, BrokerProcess, wait_until
from compat.java.kafka_tools import KafkaTools
from compat.replication.cluster import SETTINGS
from compat.zookeeper.zookeeper_server import (
    ZookeeperServer,
    listening,
    sasl_flags,
    write_client_login,
    write_server_login,
)
from kpy.metadata.zookeeper_config import LOGIN_CONFIG_KEY, Login

LOGIN = Login("kafka", "geheim")
CHROOT = "/kafka"
OWN, READABLE, OPEN = ("sasl", "kafka", 31), ("world", "anyone", 1), ("world", "anyone", 31)


def _kafka_with_login(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    java, *arguments = ZOOKEEPER_MODE.command(port, data_dir, settings)
    return [java, f"-D{LOGIN_CONFIG_KEY}={settings[LOGIN_CONFIG_KEY]}", *arguments]


KAFKA = Backend(_kafka_with_login, ZOOKEEPER_MODE.clean_exit_codes, ZOOKEEPER_MODE.is_ready)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    work_dir = tmp_path_factory.mktemp("zookeeper")
    write_server_login(work_dir / "server.jaas", LOGIN)
    with listening(ZookeeperServer(work_dir, 500, sasl_flags(work_dir / "server.jaas", required=True))) as server:
        yield server


def broker(server: ZookeeperServer, work_dir: Path, broker_id: int, backend: Backend, login: Login) -> BrokerProcess:
    login_file = work_dir / f"client-{broker_id}.jaas"
    write_client_login(login_file, login)
    settings = {
        **SETTINGS,
        "broker.id": str(broker_id),
        "zookeeper.connect": server.address + CHROOT,
        "zookeeper.set.acl": "true",
        LOGIN_CONFIG_KEY: str(login_file),
    }
    return BrokerProcess(work_dir / f"broker-{broker_id}", settings, backend)


def set_for_all_brokers(config: str, bootstrap: str) -> None:
    arguments = ("--alter", "--entity-type", "brokers", "--entity-default", "--add-config", config)
    KafkaTools("3.9.1", bootstrap).run("configs", *arguments)


def is_set(admin: AdminClient, broker_id: int, key: str, value: str) -> bool:
    resource = ConfigResource(ResourceType.BROKER, str(broker_id))
    found = admin.describe_configs([resource])[resource].result(30)[key]
    return found.value == value and found.source == ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG.value


def test_a_kpy_broker_and_an_apache_kafka_broker_share_what_is_only_theirs(
    server: ZookeeperServer, tmp_path: Path
) -> None:
    kpy = broker(server, tmp_path, 1, BACKENDS["kpy"], LOGIN)
    kafka = broker(server, tmp_path, 2, KAFKA, LOGIN)
    kpy.start()
    try:
        kafka.start()
        first, second = (AdminClient({"bootstrap.servers": each.bootstrap}) for each in (kpy, kafka))
        wait_until(lambda: set(first.list_topics(timeout=5).brokers) == {1, 2}, "kpy knows both")
        first.create_topics([NewTopic("t", 2, replica_assignment=[[1, 2], [2, 1]])])["t"].result(30)
        for asked in (first, second):
            wait_until(lambda asked=asked: isrs(asked) == [{1, 2}, {1, 2}], "all replicas are in sync", 60.0)
        # The configs of brokers are secrets. Whichever broker the tool asks writes them, and both read them.
        set_for_all_brokers("log.retention.ms=7200000", kpy.bootstrap)
        for asked, broker_id in ((first, 1), (second, 2)):
            wait_until(
                lambda asked=asked, broker_id=broker_id: is_set(asked, broker_id, "log.retention.ms", "7200000"),
                f"broker {broker_id} reads what is set for all",
            )
    finally:
        kafka.close()
        kpy.close()
    assert LOGIN.password not in kpy.log_text()
    assert_acls(server)


def isrs(admin: AdminClient) -> list[set[int]]:
    topic = admin.list_topics(timeout=5).topics.get("t")
    return [set(each.isrs) for _, each in sorted(topic.partitions.items())] if topic is not None else []


def assert_acls(server: ZookeeperServer) -> None:
    """kpy was the first, so all that was there at the start is as it has made it."""
    options = {"mechanism": "DIGEST-MD5", "username": LOGIN.user, "password": LOGIN.password}
    client = KazooClient(server.address, sasl_options=options)
    client.start()
    try:
        for path, expected in {
            "/brokers/topics/t/partitions/0/state": [OWN, READABLE],
            "/brokers/ids": [OWN, READABLE],
            "/cluster/id": [OWN, READABLE],
            "/controller_epoch": [OWN, READABLE],
            "/config/topics/t": [OWN, READABLE],
            "/config/users": [OWN],
            "/config/brokers/<default>": [OWN],
            "/consumers": [OPEN],
        }.items():
            found = [(acl.id.scheme, acl.id.id, acl.perms) for acl in client.get_acls(CHROOT + path)[0]]
            assert (path, found) == (path, expected)
    finally:
        client.stop()
        client.close()


@pytest.mark.parametrize(
    ("login", "settings", "line"),
    [
        (Login("kafka", "verraten"), {}, "has not authenticated 'kafka' by SASL"),
        (LOGIN, {"zookeeper.sasl.clientconfig": "Missing"}, "zookeeper.set.acl=true needs a section Missing in "),
        (LOGIN, {"zookeeper.sasl.client": "false"}, "has a section Client, which zookeeper.sasl.client=false would"),
    ],
)
def test_a_broker_that_cannot_log_in_says_so_in_one_line(
    server: ZookeeperServer, tmp_path: Path, login: Login, settings: dict[str, str], line: str
) -> None:
    refused = broker(server, tmp_path, 3, BACKENDS["kpy"], login)
    refused.settings.update(settings)
    with pytest.raises(AssertionError):
        refused.start()
    *before, last = refused.log_text().strip().splitlines()
    assert last.startswith("kpy: error: ")
    assert line in last
    assert "Traceback" not in "\n".join(before)
    assert login.password not in refused.log_text()
