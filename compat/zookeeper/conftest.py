"""A ZooKeeper for all tests of a module, and kpy brokers on it, each test below a path of its own."""

import gc
import json
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from compat.harness import BACKENDS, BrokerProcess, wait_until
from compat.java.kafka_tools import KafkaTools
from compat.zookeeper.zookeeper_server import ZookeeperServer, listening

with warnings.catch_warnings():
    # kafka-python loads its schemas by a function of importlib that is deprecated since Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    import compat.kafka_python.clients  # noqa: F401 - imported here first

TICK_MS = 500
SESSION_TIMEOUT_MS = 3_000


class KpyCluster:
    """kpy brokers that share a path in ZooKeeper, and a look at what is there."""

    def __init__(self, server: ZookeeperServer, work_dir: Path) -> None:
        self.server = server
        self._root = f"/{uuid.uuid4().hex}"
        self.connect = server.address + self._root
        self.brokers: list[BrokerProcess] = []
        self._work_dir = work_dir
        self._client = KazooClient(server.address)
        self._client.start()

    def broker(self, broker_id: int, settings: Mapping[str, str] | None = None, name: str = "") -> BrokerProcess:
        """A broker that has not been started; `name` keeps those with the same id apart."""
        broker = BrokerProcess(
            self._work_dir / (name or f"broker-{broker_id}"),
            {
                "broker.id": str(broker_id),
                "zookeeper.connect": self.connect,
                "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_MS),
                "zookeeper.connection.timeout.ms": "10000",
                **(settings or {}),
            },
            BACKENDS["kpy"],
        )
        self.brokers.append(broker)
        return broker

    def started(self, broker_id: int, settings: Mapping[str, str] | None = None) -> BrokerProcess:
        broker = self.broker(broker_id, settings)
        broker.start()
        return broker

    def tools(self, version: str) -> KafkaTools:
        """Tools that are told of no broker: they get `--zookeeper` with their arguments."""
        return KafkaTools(version, "")

    def data(self, path: str) -> bytes | None:
        data: bytes | None = self._client.get(self._root + path)[0]
        return data

    def document(self, path: str) -> Any:
        """The JSON at a path; None where there is no such node."""
        try:
            return json.loads(self.data(path) or b"null")
        except NoNodeError:
            return None

    def stat(self, path: str) -> Any:
        return self._client.get(self._root + path)[1]

    def children(self, path: str) -> list[str]:
        return sorted(self._client.get_children(self._root + path))

    def put(self, path: str, data: bytes) -> None:
        if self._client.exists(self._root + path):
            self._client.set(self._root + path, data)
        else:
            self._client.create(self._root + path, data)

    def delete(self, path: str) -> None:
        self._client.delete(self._root + path)

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        wait_until(condition, what, timeout_s)

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()
        self._client.stop()
        self._client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    with listening(ZookeeperServer(tmp_path_factory.mktemp("zookeeper"), TICK_MS)) as server:
        yield server


@pytest.fixture
def cluster(server: ZookeeperServer, tmp_path: Path) -> Iterator[KpyCluster]:
    cluster = KpyCluster(server, tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()
        # kafka-python leaves sockets that could not connect unclosed: they are collected where that is no error.
        gc.collect()
