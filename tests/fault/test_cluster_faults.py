"""Three brokers on ZooKeeper lose nothing that they have acknowledged, whatever befalls them and the network.

A run is a process of its own (tests/fault/cluster/run.py): servers and clients live on hosts of their own, faults come
from a seed, and the checker judges the history. Apache Kafka is the reference: it must pass as kpy must, and must be
caught when its settings give up what protects acknowledged writes.

    make chaos-cluster CHAOS_SECONDS=600 CHAOS_SEED=7 CHAOS_BROKERS=kafka
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compat.harness import require_root, require_tool, unavailable
from compat.java.kafka_tools import classpath
from tests.fault.cluster.faults import plan
from tests.fault.cluster.network import TOOLS, Network
from tests.fault.cluster.servers import KAFKA_VERSION, find_faketime

# Kills, a pause, jumping clocks, a leader cut off, ZooKeeper away, one-way loss: much in one minute.
SEED = 262
SECONDS = 60
RUN_TIMEOUT_S = 400


@contextmanager
def kept_directory() -> Iterator[Path]:
    """Where a run keeps everything. If the test fails it stays, and longer than what pytest keeps."""
    path = Path(tempfile.mkdtemp(prefix="kpy-cluster-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", autouse=True)
def can_make_hosts() -> None:
    """Skips all that needs what this machine does not have."""
    require_root("A network of hosts")
    for tool in (*TOOLS, "setpriv"):
        require_tool(tool)
    if find_faketime() is None:
        unavailable("libfaketime is not installed: run compat/toolchains.sh")
    classpath(KAFKA_VERSION)
    try:
        network = Network(["one", "other"])
    except OSError as refused:
        unavailable(f"network namespaces cannot be made here: {refused}")
    network.close()


def run(directory: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the verdict and what was printed; where a run fails its directory is named there."""
    command = [sys.executable, "-m", "tests.fault.cluster.run", "--directory", str(directory), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate()
    path = directory / "verdict.json"
    return process.returncode, json.loads(path.read_text()) if path.exists() else {}, output


@pytest.mark.timeout(RUN_TIMEOUT_S + 30)
@pytest.mark.parametrize("brokers", ["kpy", "kafka"])
def test_a_cluster_under_faults_keeps_what_it_has_acknowledged(brokers: str) -> None:
    with kept_directory() as directory:
        plan_of = ("--seed", str(SEED), "--seconds", str(SECONDS))
        code, verdict, output = run(directory, "--brokers", brokers, "--transactions", *plan_of)
        assert code == 0, output
        assert verdict["faults"] == len(plan(SEED, SECONDS))


@pytest.mark.timeout(RUN_TIMEOUT_S + 30)
def test_writes_that_only_a_cut_off_leader_has_are_found_lost() -> None:
    with kept_directory() as directory:
        code, verdict, output = run(directory, "--brokers", "kafka", "--unsafe", "acks-1")
        assert code == 1, output
        assert {"lost-write", "vanished", "inconsistent-offset"} <= verdict["anomalies"].keys(), output
