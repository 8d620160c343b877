"""One data directory, taken by kpy and by Apache Kafka in turn: how each is started on it, what each serves of it."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import trio
from kazoo.client import KazooClient

from compat.differential.apache_kafka import ZOOKEEPER_MODE
from compat.harness import Backend, BrokerProcess, wait_until
from compat.java.kafka_tools import TOOL_TIMEOUT_S, KafkaTools, java
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.store import Node, with_parents
from kpy.server import METADATA_FILE

VERSION = "3.9.1"
TOUR = Path(__file__).with_name("StorageTour.java")

SETTINGS: Mapping[str, str] = {
    "broker.id": "1",
    "log.retention.ms": "-1",
    "auto.create.topics.enable": "false",
    "inter.broker.protocol.version": "3.9",
    "log.cleaner.backoff.ms": "500",
    "controlled.shutdown.enable": "false",
}
LOG_DIRS = ("first", "second")
INDEX_FAULTS = ("mismatch", "not found", "out of order", "Non-consecutive", "does not exist")

EMPTIED_BATCH = re.compile(r"Found timestamp mismatch in :\S+\n\s+Index timestamp: \d+, log timestamp: -1\n")
"""What the tool says of a time index that names a batch which compaction has emptied: it looks for the time in the
records, where Apache Kafka's cleaner takes it from the batch (MemoryRecords.filterTo), as kpy's does.
"""


class Served(NamedTuple):
    """All that a consumer gets of some topics: the records, and the end of each partition."""

    records: list[dict[str, Any]]
    ends: dict[tuple[str, int], int]

    def of(self, topic: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["topic"] == topic]


def _kpy_command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    command = [sys.executable, "-m", "kpy", "start", "--listen", f"127.0.0.1:{port}"]
    for name, value in settings.items():
        if name not in ("inter.broker.protocol.version", "zookeeper.connect"):
            command += ["--set", f"{name}={value}"]
    return command


KPY = Backend(_kpy_command, frozenset({0}))


def kpy_on(work_dir: Path, settings: Mapping[str, str] | None = None) -> BrokerProcess:
    return _on(work_dir, settings or {}, KPY)


def apache_kafka_on(work_dir: Path, zookeeper: str) -> BrokerProcess:
    return _on(work_dir, {"zookeeper.connect": zookeeper}, ZOOKEEPER_MODE)


def log_dirs(work_dir: Path) -> list[Path]:
    return [work_dir / "data" / name for name in LOG_DIRS]


def _on(work_dir: Path, settings: Mapping[str, str], backend: Backend) -> BrokerProcess:
    for path in log_dirs(work_dir):
        path.mkdir(parents=True, exist_ok=True)
    paths = ",".join(map(str, log_dirs(work_dir)))
    return BrokerProcess(work_dir, {**SETTINGS, "log.dirs": paths, **settings}, backend)


def copied(source: Path, target: Path) -> Path:
    """The data directories as they are now, for the next broker."""
    shutil.copytree(source / "data", target / "data")
    return target


def tour(*arguments: str, stdin: str = "") -> list[str]:
    """What StorageTour.java prints."""
    command = java(VERSION, str(TOUR), *arguments)
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    assert result.returncode == 0, f"{' '.join(arguments)}:\n{result.stdout[-2000:]}\n{result.stderr}"
    return result.stdout.splitlines()


def served(broker: BrokerProcess, isolation: str, *topics: str) -> Served:
    """Everything that the Java consumer reads with this isolation level."""
    lines = [json.loads(line) for line in tour("read", broker.bootstrap, isolation, *topics)]
    records = sorted(
        (line for line in lines if "end" not in line),
        key=lambda each: (each["topic"], each["partition"], each["offset"]),
    )
    return Served(records, {(each["topic"], each["partition"]): each["end"] for each in lines if "end" in each})


@asynccontextmanager
async def embedded_store(work_dir: Path) -> AsyncGenerator[EmbeddedStore]:
    """The metadata that kpy keeps beside its logs."""
    store = EmbeddedStore(log_dirs(work_dir)[0] / METADATA_FILE)
    try:
        yield store
    finally:
        await store.close()


def znodes_to_zookeeper(work_dir: Path, zookeeper: str) -> None:
    """Give ZooKeeper the metadata that kpy keeps beside its logs: topics with their ids, states, configs."""

    async def read() -> dict[str, Node]:
        async with embedded_store(work_dir) as store:
            return await store.tree("/")

    nodes = trio.run(read)
    paths = [
        path for path in with_parents(sorted(nodes)) if path not in ("", "/") and not path.startswith("/brokers/ids/")
    ]
    lines = [
        f"{path}\t{'null' if nodes[path].data is None else base64.b64encode(nodes[path].data or b'').decode()}\n"
        for path in paths
    ]
    tour("put-znodes", zookeeper, stdin="".join(lines))


def znodes_to_kpy(work_dir: Path, zookeeper: str) -> None:
    """The other way; the embedded store must not exist yet."""
    lines = tour("get-znodes", zookeeper)

    async def write() -> None:
        async with embedded_store(work_dir) as store:
            for line in lines:
                path, data = line.split("\t")
                await store.create(path, None if data == "null" else base64.b64decode(data))

    trio.run(write)


def wait_until_forgotten(zookeeper: str) -> None:
    """Until ZooKeeper has ended the session of a killed broker: before, no other may register under its id."""
    client = KazooClient(zookeeper)
    client.start()
    path = f"/brokers/ids/{SETTINGS['broker.id']}"
    try:
        wait_until(lambda: client.exists(path) is None, "the killed broker's session ends", timeout_s=60)
    finally:
        client.stop()
        client.close()


def check_dumps(work_dir: Path) -> int:
    """kafka-dump-log finds nothing wrong in any file; how many batches it has seen."""
    tools = KafkaTools(VERSION, "")
    files = [path for directory in log_dirs(work_dir) for path in directory.glob("*-*/*") if path.stat().st_size]
    logs = ",".join(str(path) for path in files if path.suffix == ".log")
    dumped = tools.run("dump-log", "--deep-iteration", "--files", logs).stdout
    batches = dumped.count("isvalid: true")
    assert batches
    assert "isvalid: false" not in dumped
    assert "Found non-consecutive" not in dumped
    indexes = [path for path in files if path.suffix in (".index", ".timeindex")]
    joined = ",".join(map(str, indexes))
    for check in ("--verify-index-only", "--index-sanity-check"):
        output = tools.run("dump-log", check, "--files", joined)
        text = EMPTIED_BATCH.sub("", output.stdout + output.stderr)
        assert not [fault for fault in INDEX_FAULTS if fault in text], text[-3000:]
    others = ",".join(str(path) for path in files if path.suffix in (".snapshot", ".txnindex"))
    tools.run("dump-log", "--files", others)
    return batches


def stop_or_kill(broker: BrokerProcess, how: str) -> None:
    if how == "killed":
        broker.kill()
    else:
        broker.stop()
