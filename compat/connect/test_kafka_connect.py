"""Kafka Connect 3.9.1, standalone: a file's lines go through a topic into another file, also over a restart."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compat.harness import BrokerProcess, free_port, unique, wait_until
from compat.java.kafka_tools import KafkaTools, java_of, leaving_classes

POM = Path(__file__).with_name("kafka-connect-3.9.1.xml")
PATIENCE_S = 120.0


def properties(path: Path, values: Mapping[str, str]) -> str:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return str(path)


@contextmanager
def connect_worker(work_dir: Path, bootstrap: str, topic: str) -> Iterator[subprocess.Popen[bytes]]:
    """A standalone worker with a file source and a file sink."""
    worker = {
        "bootstrap.servers": bootstrap,
        "listeners": f"http://127.0.0.1:{free_port()}",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.storage.file.filename": str(work_dir / "offsets"),
        "offset.flush.interval.ms": "200",
        "plugin.discovery": "service_load",
    }
    source = {
        "name": f"source-{topic}",
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "file": str(work_dir / "in.txt"),
        "topic": topic,
    }
    sink = {
        "name": f"sink-{topic}",
        "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
        "file": str(work_dir / "out.txt"),
        "topics": topic,
        "tasks.max": "2",
    }
    started = java_of(
        POM,
        "org.apache.kafka.connect.cli.ConnectStandalone",
        properties(work_dir / "worker.properties", worker),
        properties(work_dir / "source.properties", source),
        properties(work_dir / "sink.properties", sink),
    )
    with (
        (work_dir / "connect.log").open("ab") as log,
        leaving_classes(POM, started) as command,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()


def test_lines_go_from_file_to_topic_to_file_and_on_after_a_restart(broker: BrokerProcess, tmp_path: Path) -> None:
    tools = KafkaTools("3.9.1", broker.bootstrap)
    topic = unique("lines")
    tools.create_topic(topic, 2)
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    first = [f"line {number}" for number in range(500)]
    source.write_text("".join(line + "\n" for line in first))

    def arrived() -> list[str]:
        return sorted(target.read_text().splitlines()) if target.exists() else []

    with connect_worker(tmp_path, broker.bootstrap, topic) as worker:
        wait_until(lambda: worker.poll() is not None or arrived() == sorted(first), "the first lines", PATIENCE_S)
        assert arrived() == sorted(first), (tmp_path / "connect.log").read_text()[-4_000:]
    second = [f"line {number}" for number in range(500, 600)]
    with source.open("a") as file:
        file.writelines(line + "\n" for line in second)
    with connect_worker(tmp_path, broker.bootstrap, topic):
        wait_until(lambda: len(arrived()) >= 600, "the other lines", PATIENCE_S)
    # Both the source's place in the file and the sink's committed offsets were kept: nothing came twice.
    assert arrived() == sorted([*first, *second])
    listed = tools.run("consumer-groups", "--list").lines
    assert f"connect-sink-{topic}" in listed
