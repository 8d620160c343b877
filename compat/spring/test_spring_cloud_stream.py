"""Spring Cloud Stream with the Kafka binder's defaults: from a source through a function to a sink, in order."""

import subprocess
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from compat.harness import one_at_a_time, require_tool

HERE = Path(__file__).parent
BUILD_TIMEOUT_S = 300.0
# The application gives up by itself after a minute; this is the bound for one that cannot even do that.
RUN_TIMEOUT_S = 120.0
ADMIN_TIMEOUT_S = 10.0
MESSAGES = 100


@pytest.fixture(scope="session")
def application() -> Path:
    """The application's jar, built by Maven unless it is newer than all that it is built from."""
    jar = HERE / "target" / "stream-tour.jar"
    sources = [HERE / "pom.xml", *(path for path in (HERE / "src").rglob("*") if path.is_file())]
    if not jar.exists() or jar.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        command = [require_tool("mvn"), "-q", "-B", "-f", str(HERE / "pom.xml"), "package"]
        with one_at_a_time("maven"):
            build = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
        assert build.returncode == 0, f"Maven could not build the application:\n{build.stdout}{build.stderr}"
    return jar


def test_source_function_and_sink_work_without_a_word_of_configuration(application: Path, default_broker: str) -> None:
    flags = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    command = [require_tool("java"), *flags, "-jar", str(application)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert run.returncode == 0, f"{run.stdout[-20_000:]}\n{run.stderr}"
    assert [line for line in run.stdout.splitlines() if line.startswith("sink: ")] == [
        f"sink: {number} squared is {number * number}" for number in range(1, MESSAGES + 1)
    ]

    admin = AdminClient({"bootstrap.servers": default_broker})
    groups = admin.list_consumer_groups(request_timeout=ADMIN_TIMEOUT_S).result()
    assert {group.group_id for group in groups.valid} == {"squarers", "printers"}
    for group, topic in (("squarers", "numbers"), ("printers", "squares")):
        asked = ConsumerGroupTopicPartitions(group)
        (answer,) = admin.list_consumer_group_offsets([asked], request_timeout=ADMIN_TIMEOUT_S).values()
        committed = [
            (partition.topic, partition.partition, partition.offset) for partition in answer.result().topic_partitions
        ]
        assert committed == [(topic, 0, MESSAGES)]
