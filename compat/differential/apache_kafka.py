"""Apache Kafka 3.9.1 in ZooKeeper mode, which is what kpy takes for its model.

The jars are those of the command-line tools (compat/java), which bring the broker and ZooKeeper too. Both start at
once: the broker waits for its ZooKeeper by itself.
"""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compat.harness import Backend, BrokerProcess, controller_id, running
from compat.java.kafka_tools import java
from compat.zookeeper.zookeeper_server import ZookeeperServer, listening

VERSION = "3.9.1"


def _command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    properties = {"listeners": f"PLAINTEXT://127.0.0.1:{port}", "log.dirs": str(data_dir), **settings}
    path = data_dir.with_name("server.properties")
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return java(VERSION, "kafka.Kafka", str(path))


def knows_its_controller(port: int) -> bool:
    """librdkafka asks once who the controller is, and then not for a long time."""
    return controller_id(port) >= 0


ZOOKEEPER_MODE = Backend(_command, frozenset({0, 128 + signal.SIGTERM}), knows_its_controller)


@contextmanager
def running_apache_kafka(work_dir: Path, settings: Mapping[str, str]) -> Iterator[BrokerProcess]:
    """A started broker with a ZooKeeper of its own."""
    with listening(ZookeeperServer(work_dir)) as zookeeper:
        broker = BrokerProcess(work_dir, {**settings, "zookeeper.connect": zookeeper.address}, ZOOKEEPER_MODE)
        # Killed at the end: nobody reads its data again, and to give up hundreds of partitions in good order takes it
        # half a minute. A test that does read them has stopped it.
        with running(broker):
            yield broker
