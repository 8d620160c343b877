"""librdkafka's own test suite in C and C++, which the crate rdkafka-sys brings with the source.

`tests/test-runner` runs its tests in parallel against the brokers that test.conf names, and has a few things done by
Apache Kafka's own tools, for which it is given those of 3.9.1. A test ends at the first of its subtests that fails;
0081_admin does so half way, and so its subtests run one by one as well.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from shlex import join

from compat.harness import require_tool
from compat.java.kafka_tools import KafkaTools
from compat.suites.expectations import Outcome, Suite
from compat.suites.logged import run_logged

HERE = Path(__file__).parent
CRATE = "rdkafka-sys"
BUILD_TIMEOUT_S = 1_500.0
RUN_TIMEOUT_S = 1_200.0

SETTINGS = {
    "num.partitions": "4",
    "group.min.session.timeout.ms": "1000",
    # Members that start together are taken for members of one generation.
    "group.initial.rebalance.delay.ms": "1000",
}
OUTCOMES: dict[str, Outcome] = {"PASSED": "pass", "FAILED": "fail"}
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
SKIPS_ITSELF = re.compile(r"\[(\w+) */[^\]]*\] WARN: SKIPPING TEST: (?!Filtered|included)")
"""In the log. Tests that the options leave out are in the report as skipped, too."""

OPTIONS = ("-Q", "-E", "-p4", "-L")
"""Quick, without sockets that misbehave, four at a time; and not the local ones, which need no broker."""
LEFT_OUT = "0053,0098,0101,0110"
"""What would run where RapidJSON happens to be installed, two of them with programs in Java of their own."""
TOOLS_VERSION = "3.9.1"
TOOLS = ("topics", "configs")
ADMIN = "0081_admin"
# All but DescribeConsumerGroups, which waits for sessions of 6 s to be over for 6 s.
ADMIN_SUBTESTS = (
    "unclean_destroy",
    "CreateTopics",
    "DeleteTopics",
    "CreatePartitions",
    "CreateAcls",
    "DescribeAcls",
    "DeleteAcls",
    "AlterConfigs",
    "IncrementalAlterConfigs",
    "DescribeConfigs",
    "DescribeConfigs_groups",
    "DeleteRecords",
    "ListConsumerGroups",
    "DescribeTopics",
    "DescribeCluster",
    "DeleteGroups",
    "DeleteConsumerGroupOffsets",
    "AlterConsumerGroupOffsets",
    "ListConsumerGroupOffsets",
    "UserScramCredentials",
    "ListOffsets",
)


def prepare(build_dir: Path) -> Path:
    """The built source, from the crate that Cargo.lock pins. Building takes minutes, once."""
    manifest = HERE / "librdkafka" / "Cargo.toml"
    cargo = require_tool("cargo")
    command = [cargo, "metadata", "--format-version=1", "--locked", "--manifest-path", str(manifest)]
    metadata = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=BUILD_TIMEOUT_S).stdout)
    (package,) = [each for each in metadata["packages"] if each["name"] == CRATE]
    source = build_dir / f"librdkafka-{package['version']}"
    if not (source / "tests" / "test-runner").exists():
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(Path(package["manifest_path"]).parent / "librdkafka", source)
        _ask_for_one_replica(source / "tests" / "test.c")
        for step in (
            ["./configure", "--disable-gssapi", "--disable-curl"],
            ["make", "-j2", "libs"],
            ["make", "-j2", "-C", "tests", "test-runner"],
        ):
            with (source / "build.log").open("ab") as log:
                subprocess.run(step, cwd=source, stdout=log, stderr=log, timeout=BUILD_TIMEOUT_S, check=True)
    return source


def _ask_for_one_replica(test_c: Path) -> None:
    """A few tests create topics of three replicas, but none of them depends on there being more than one."""
    asked = "rd_kafka_NewTopic_new(topicname, partition_cnt, replication_factor,"
    text = test_c.read_text()
    assert text.count(asked) == 1, f"{test_c} creates topics in another way"
    test_c.write_text(text.replace(asked, asked.replace("replication_factor", "1")))


def run(source: Path, bootstrap: str, report: Path) -> dict[str, Outcome]:
    """Test -> how it ended, of those that may rely on topics that are created when they are first used."""
    environment = _environment(source, bootstrap, report)
    outcomes = _run(source, report, environment, *OPTIONS)
    for subtest in ADMIN_SUBTESTS:
        only = {"TESTS": ADMIN[:4], "SUBTESTS": f"do_test_{subtest}"}
        outcomes[f"{ADMIN}/{subtest}"] = _run(source, report, environment | only, *OPTIONS)[ADMIN]
    return outcomes


def run_without_auto_creation(source: Path, bootstrap: str, report: Path) -> dict[str, Outcome]:
    """The same of those that rely on the opposite, which the suite calls a scenario."""
    return _run(source, report, _environment(source, bootstrap, report), *OPTIONS, "-s", "noautocreate")


def _environment(source: Path, bootstrap: str, report: Path) -> dict[str, str]:
    configuration = report.with_suffix(".conf")
    configuration.write_text(f"bootstrap.servers={bootstrap}\ntest.topic.random=true\n")
    kafka = report.with_suffix(".kafka")
    _install_tools(kafka / "bin")
    return {
        "RDKAFKA_TEST_CONF": str(configuration),
        "TEST_KAFKA_VERSION": TOOLS_VERSION,
        "TEST_REPORT": str(report),
        "TESTS_SKIP": LEFT_OUT,
        "KAFKA_PATH": str(kafka),
        "BROKERS": bootstrap,
        "LD_LIBRARY_PATH": f"{source / 'src'}{os.pathsep}{source / 'src-cpp'}",
    }


def _install_tools(directory: Path) -> None:
    """Scripts as an installation of Apache Kafka has them, for the tests that call them."""
    directory.mkdir(parents=True)
    tools = KafkaTools(TOOLS_VERSION, "")
    for name in TOOLS:
        script = directory / f"kafka-{name}.sh"
        script.write_text(f'#!/bin/sh\nexec {join(tools.command(name, []))} "$@"\n')
        script.chmod(0o755)


def _run(source: Path, report: Path, environment: Mapping[str, str], *options: str) -> dict[str, Outcome]:
    report.unlink(missing_ok=True)
    log = report.with_suffix(".log")
    run_logged(["./test-runner", *options], log, source / "tests", environment, RUN_TIMEOUT_S)
    skip_themselves = set(SKIPS_ITSELF.findall(ESCAPES.sub("", log.read_text(errors="replace"))))
    states = {name: test["state"] for name, test in json.loads(report.read_text())["tests"].items()}
    del states["<MAIN>"]  # the run itself
    return {
        name: OUTCOMES.get(state, "fail")
        for name, state in states.items()
        if state in OUTCOMES or name in skip_themselves
    }


SUITE = Suite("librdkafka", SETTINGS, prepare, run)
SUITE_WITHOUT_AUTO_CREATION = Suite(
    "librdkafka-noautocreate",
    {**SETTINGS, "auto.create.topics.enable": "false"},
    prepare,
    run_without_auto_creation,
)
