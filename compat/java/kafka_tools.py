"""Apache Kafka's command-line tools: resolved by Maven once for each version, then run as JVMs of their own.

The class path of a version is what its `kafka-<version>.xml` asks for. Maven writes it to target/, which git ignores.
As long as that file is newer than the request for it and all its jars exist, neither Maven nor the network is needed.

Beside it is what the first JVM on a class path has left, a tool or another program: an archive of the classes that it
had loaded (JEP 350), with which every later one starts with half of the work. A JVM that an archive does not fit goes
without it.
"""

import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from compat.harness import one_at_a_time, require_tool

HERE = Path(__file__).parent
RESOLVE_TIMEOUT_S = 300.0
TOOL_TIMEOUT_S = 90.0

# A tool lives for a second, so what shortens its start is worth more than what the JVM would win back later.
# Loggers are configured by options, since an archive cannot be of a class path with directories.
JVM_FLAGS = (
    *("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xlog:disable"),
    f"-Dlog4j.configuration={(HERE / 'log4j.properties').as_uri()}",
    # Apache Kafka 4: warnings, to standard error, so that a tool's output stays its own.
    *("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.logFile=System.err"),
)


class Tool(NamedTuple):
    """A tool's main class, and the option that tells it where the cluster is."""

    main_class: str
    bootstrap: tuple[str, str] | None = ("--bootstrap-server", "{}")


# A tool has one name in every version; what moved or was renamed between versions is said here and nowhere else.
TOOLS_2_8: Mapping[str, Tool] = {
    "topics": Tool("kafka.admin.TopicCommand"),
    "configs": Tool("kafka.admin.ConfigCommand"),
    "consumer-groups": Tool("kafka.admin.ConsumerGroupCommand"),
    "get-offsets": Tool("kafka.tools.GetOffsetShell", ("--broker-list", "{}")),
    "console-producer": Tool("kafka.tools.ConsoleProducer"),
    "console-consumer": Tool("kafka.tools.ConsoleConsumer"),
    "producer-perf-test": Tool(
        "org.apache.kafka.tools.ProducerPerformance", ("--producer-props", "bootstrap.servers={}")
    ),
    "consumer-perf-test": Tool("kafka.tools.ConsumerPerformance"),
    "verifiable-producer": Tool("org.apache.kafka.tools.VerifiableProducer"),
    "verifiable-consumer": Tool("org.apache.kafka.tools.VerifiableConsumer"),
    "dump-log": Tool("kafka.tools.DumpLogSegments", None),
    "log-dirs": Tool("kafka.admin.LogDirsCommand"),
    "delete-records": Tool("kafka.admin.DeleteRecordsCommand"),
    "reassign-partitions": Tool("kafka.admin.ReassignPartitionsCommand"),
    "preferred-replica-election": Tool("kafka.admin.PreferredReplicaLeaderElectionCommand"),
}
TOOLS_3_9: Mapping[str, Tool] = {
    **TOOLS_2_8,
    "topics": Tool("org.apache.kafka.tools.TopicCommand"),
    "consumer-groups": Tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    "get-offsets": Tool("org.apache.kafka.tools.GetOffsetShell"),
    "console-consumer": Tool("org.apache.kafka.tools.consumer.ConsoleConsumer"),
    "consumer-perf-test": Tool("org.apache.kafka.tools.ConsumerPerformance"),
    "log-dirs": Tool("org.apache.kafka.tools.LogDirsCommand"),
    "delete-records": Tool("org.apache.kafka.tools.DeleteRecordsCommand"),
    "transactions": Tool("org.apache.kafka.tools.TransactionsCommand", None),
    "reassign-partitions": Tool("org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
    "leader-election": Tool("org.apache.kafka.tools.LeaderElectionCommand"),
    "replica-verification": Tool("org.apache.kafka.tools.ReplicaVerificationTool", ("--broker-list", "{}")),
}
TOOLS_4_3: Mapping[str, Tool] = {
    **TOOLS_3_9,
    "console-producer": Tool("org.apache.kafka.tools.ConsoleProducer"),
    "producer-perf-test": Tool("org.apache.kafka.tools.ProducerPerformance"),
    "dump-log": Tool("org.apache.kafka.tools.DumpLogSegments", None),
}


class Options(NamedTuple):
    """Options that were renamed between versions (KIP-629, KIP-1147)."""

    topic_pattern: str = "--include"
    reader_property: str = "--property"
    formatter_property: str = "--property"
    consumer_perf_count: str = "--messages"
    producer_config: str = "--producer.config"
    consumer_config: str = "--consumer.config"


TOOLS: Mapping[str, Mapping[str, Tool]] = {"2.8.2": TOOLS_2_8, "3.9.1": TOOLS_3_9, "4.3.1": TOOLS_4_3}
OPTIONS: Mapping[str, Options] = {
    "2.8.2": Options(topic_pattern="--whitelist"),
    "3.9.1": Options(),
    "4.3.1": Options(
        *("--include", "--reader-property", "--formatter-property", "--num-records"),
        *("--command-config", "--command-config"),
    ),
}
VERSIONS = tuple(TOOLS)


def classpath(version: str) -> str:
    """The jars of one version of Apache Kafka."""
    return classpath_of(pom_of(version))


def pom_of(version: str) -> Path:
    return HERE / f"kafka-{version}.xml"


@functools.cache
def classpath_of(pom: Path) -> str:
    """The jars that a POM asks for."""
    resolved = pom.parent / "target" / f"{pom.stem}.classpath"
    # Maven's own repository is not made for two that write to it.
    with one_at_a_time("maven"):
        if not _is_current(resolved, pom):
            _resolve(pom, resolved)
    return resolved.read_text()


def _resolve(pom: Path, resolved: Path) -> None:
    command = [require_tool("mvn"), "-q", "-B", "-f", str(pom), "dependency:build-classpath"]
    result = subprocess.run(
        [*command, f"-Dmdep.outputFile={resolved}"],
        capture_output=True,
        text=True,
        timeout=RESOLVE_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, f"Maven could not resolve {pom.name}:\n{result.stdout}{result.stderr}"
    resolved.with_suffix(".jsa").unlink(missing_ok=True)


def _is_current(resolved: Path, pom: Path) -> bool:
    if not resolved.exists() or resolved.stat().st_mtime < pom.stat().st_mtime:
        return False
    return all(Path(jar).exists() for jar in resolved.read_text().split(os.pathsep))


def java(version: str, *arguments: str) -> list[str]:
    """A command line that runs a main class, or a source file, beside the jars of one version."""
    return java_of(pom_of(version), *arguments)


def java_of(pom: Path, *arguments: str) -> list[str]:
    """The same beside the jars that a POM asks for."""
    jars, archive = classpath_of(pom), archive_of(pom)
    return java_with(jars, *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []), *arguments)


def archive_of(pom: Path) -> Path:
    """Where the classes from a POM's jars are kept for JVMs to come, once one has left them."""
    return pom.parent / "target" / f"{pom.stem}.jsa"


@contextmanager
def leaving_classes(pom: Path, command: list[str]) -> Iterator[list[str]]:
    """The command of a JVM that ends in here, and then leaves the archive if there is none and it was not killed."""
    archive = archive_of(pom)
    if archive.exists():
        yield command
        return
    # Of its own until it is whole: another process may run the same program now.
    unfinished = archive.with_suffix(f".{os.getpid()}.jsa")
    java_path, *arguments = command
    yield [java_path, f"-XX:ArchiveClassesAtExit={unfinished}", *arguments]
    if unfinished.exists():
        unfinished.replace(archive)


def java_with(jars: str, *arguments: str) -> list[str]:
    """The same beside any jars."""
    return [require_tool("java"), *JVM_FLAGS, "-cp", jars, *arguments]


class Output(NamedTuple):
    """What a finished tool has printed."""

    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects of a verifiable producer or consumer, one a line."""
        return [json.loads(line) for line in self.lines]

    def table(self, *columns: str) -> list[tuple[str, ...]]:
        """The rows below the heading `columns`.

        Cells are told apart by blanks, so none may be empty or hold one. Line ends say nothing: 3.9 leaves some out.
        """
        words = self.stdout.split()
        for start in range(len(words) - len(columns) + 1):
            if tuple(words[start : start + len(columns)]) == columns:
                cells = words[start + len(columns) :]
                width = len(columns)
                assert len(cells) % width == 0, f"ragged table:\n{self.stdout}"
                return [tuple(cells[row : row + width]) for row in range(0, len(cells), width)]
        raise AssertionError(f"no heading {columns} in:\n{self.stdout}{self.stderr}")


class KafkaTools:
    """The tools of one version, pointed at one cluster; at none, with an empty `bootstrap`, if arguments say where."""

    def __init__(self, version: str, bootstrap: str) -> None:
        self.version = version
        self.options = OPTIONS[version]
        self._bootstrap = bootstrap

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        tool = TOOLS[self.version][name]
        bootstrap = [part.format(self._bootstrap) for part in tool.bootstrap or () if self._bootstrap]
        return java(self.version, tool.main_class, *arguments, *bootstrap)

    def run(self, name: str, *arguments: str, stdin: str = "", exit_code: int = 0) -> Output:
        """Run a tool to its end; AssertionError with all it said when it ends in another exit code."""
        with leaving_classes(pom_of(self.version), self.command(name, arguments)) as command:
            result = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=TOOL_TIMEOUT_S,
                check=False,
            )
        assert result.returncode == exit_code, (
            f"{name} {' '.join(arguments)} of {self.version} ended in {result.returncode}, expected {exit_code}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
        return Output(result.stdout, result.stderr)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a tool that goes on until it is killed; what it prints can be read meanwhile."""
        command = self.command(name, arguments)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def create_topic(self, topic: str, partitions: int) -> None:
        self.run("topics", "--create", "--topic", topic, "--partitions", str(partitions))
