"""Apache Kafka 3.9.1 in ZooKeeper mode, which is what kpy takes for its model.

The jars are those of the command-line tools (compat/java), which bring the broker and ZooKeeper too. Both start at
once: the broker waits for its ZooKeeper by itself. ZooKeeper does not wait for the disk, which no scenario outlives.
"""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compat.harness import Backend, BrokerProcess, free_port
from compat.java.kafka_tools import java

VERSION = "3.9.1"
STOP_TIMEOUT_S = 10.0


def _command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    properties = {"listeners": f"PLAINTEXT://127.0.0.1:{port}", "log.dirs": str(data_dir), **settings}
    path = data_dir.with_name("server.properties")
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return java(VERSION, "kafka.Kafka", str(path))


ZOOKEEPER_MODE = Backend(_command, frozenset({0, 128 + signal.SIGTERM}))


@contextmanager
def running_zookeeper(work_dir: Path) -> Iterator[str]:
    """A started ZooKeeper; what `zookeeper.connect` is to be."""
    port = free_port()
    work_dir.mkdir()
    with (work_dir / "zookeeper.log").open("ab") as log:
        zookeeper = subprocess.Popen(
            java(
                VERSION,
                "-Dzookeeper.admin.enableServer=false",
                "-Dzookeeper.forceSync=no",
                "org.apache.zookeeper.server.ZooKeeperServerMain",
                str(port),
                str(work_dir / "zookeeper"),
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        zookeeper.kill()
        zookeeper.wait(STOP_TIMEOUT_S)


@contextmanager
def running_apache_kafka(work_dir: Path, settings: Mapping[str, str]) -> Iterator[BrokerProcess]:
    """A started broker with a ZooKeeper of its own."""
    with running_zookeeper(work_dir) as connect:
        broker = BrokerProcess(work_dir, {**settings, "zookeeper.connect": connect}, ZOOKEEPER_MODE)
        broker.start()
        try:
            yield broker
        finally:
            # Nobody reads its data again, and to give up hundreds of partitions in good order takes it half a minute.
            # A test that does read them has stopped it.
            if broker.is_running:
                broker.kill()
