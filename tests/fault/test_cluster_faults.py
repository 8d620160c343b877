"""Three brokers on ZooKeeper lose nothing that they have acknowledged, whatever befalls them and the network.

A run is a process of its own (tests/fault/cluster/run.py): servers and clients live on hosts of their own, faults come
from a seed, and the checker judges the history. Apache Kafka is the reference that must pass, and that must be caught
when its settings give up what protects acknowledged writes.

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
from tests.fault.cluster.faults import ALL_KINDS, plan
from tests.fault.cluster.network import TOOLS, both_ways
from tests.fault.cluster.servers import find_faketime

SEED = 5
SECONDS = 60
RUN_TIMEOUT_S = 400


@contextmanager
def kept_directory() -> Iterator[Path]:
    """Where a run keeps everything. If the test fails it stays, and longer than what pytest keeps."""
    path = Path(tempfile.mkdtemp(prefix="kpy-cluster-"))
    yield path
    shutil.rmtree(path)


def run(directory: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the verdict and what was printed; where a run fails its directory is named there."""
    require_root("A network of hosts")
    for tool in (*TOOLS, "setpriv"):
        require_tool(tool)
    if find_faketime() is None:
        unavailable("libfaketime is not installed: run compat/toolchains.sh")
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
@pytest.mark.parametrize("brokers", ["kafka"])
def test_a_cluster_under_faults_keeps_what_it_has_acknowledged(brokers: str) -> None:
    with kept_directory() as directory:
        code, verdict, output = run(directory, "--brokers", brokers, "--seed", str(SEED), "--seconds", str(SECONDS))
        assert code == 0, output
        assert verdict["faults"] == len(plan(SEED, SECONDS))


@pytest.mark.timeout(RUN_TIMEOUT_S + 30)
def test_writes_that_only_a_cut_off_leader_has_are_found_lost() -> None:
    with kept_directory() as directory:
        code, verdict, output = run(directory, "--brokers", "kafka", "--unsafe", "acks-1")
        assert code == 1, output
        assert {"lost-write", "vanished", "inconsistent-offset"} <= verdict["anomalies"].keys(), output


def test_a_plan_is_the_same_for_the_same_seed_and_covers_every_kind() -> None:
    assert plan(1, 600) == plan(1, 600) != plan(2, 600)
    assert {fault.kind for fault in plan(1, 600)} == set(ALL_KINDS)
    assert all(fault.at_s + fault.duration_s <= 600 for fault in plan(1, 600))


def test_links_are_cut_both_ways() -> None:
    assert both_ways(["a"], ["b", "c"]) == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
