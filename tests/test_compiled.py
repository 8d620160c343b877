"""What an install compiles does what its source does: tests run once more on a compiled copy (see hot_modules.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hot_modules
from compat.harness import require_tool

ROOT = Path(__file__).parent.parent
SUITES = (
    "tests/unit/net tests/unit/records tests/unit/storage tests/unit/api",
    "tests/unit/group tests/unit/txn tests/unit/test_timers.py",
    "tests/transcripts tests/property",
    "tests/broker tests/fault/test_storage_histories.py tests/fault/test_kill9.py",
    "tests/sim",
    "compat/kafka_python",
    "tests/unit/test_peers.py compat/replication/test_transactions_across_brokers.py",
)
PYTEST = """
import sys, pytest, kpy.pending
assert kpy.pending.__file__.endswith(".so")
sys.exit(pytest.main(sys.argv[1:]))
"""
"""kpy is imported before pytest puts the checkout in front of the path."""

LEFT_OUT = (
    "tests/sim/test_sim_group_crowd.py",
    "tests/sim/test_sim_replication.py::test_a_known_bug_is_found",
    "tests/sim/test_sim_transactions.py::test_the_simulation_finds",
    "tests/unit/api/test_api_fetch_sessions.py::test_only_where_something_has_happened_is_read",
    "tests/unit/group/test_group_commits_of_a_round.py",
    "tests/unit/group/test_group_coordinator.py",
    "tests/unit/records/test_records_validate.py::test_records_that_are_looked_at_are_bounded",
    "tests/unit/storage/test_storage_log_dirs.py::test_a_deleted_log_is_let_go_at_once_and_not_by_the_garbage_collector",
    "tests/unit/txn/test_transaction_coordinator.py::test_records_that_wait_for_the_coordinator_are_kept",
    "tests/unit/txn/test_transaction_coordinator.py::test_what_could_not_be_written_of_an_end_is_written_later",
    "tests/unit/txn/test_transactions_elsewhere.py",
)
"""What puts something else in the place of a compiled class, method or constant, which compiled modules do not take, or
refers weakly to an object of one.
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a Python to which kpy is a compiled copy, wherever it is started, and all else is the checkout's."""
    require_tool("cc")
    copy = tmp_path_factory.mktemp("compiled")
    asked = {**os.environ, "KPY_NATIVE": "1"}
    subprocess.run([sys.executable, str(ROOT / "hot_modules.py"), str(copy)], env=asked, check=True, timeout=600)
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{copy}:{ROOT}"}


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_every_hot_module_is_compiled(environment: dict[str, str]) -> None:
    names = [path.removesuffix(".py").replace("/", ".") for path in hot_modules.HOT_MODULES]
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    files = run(environment, "-c", script, *names).splitlines()
    assert [file for file in files if not file.endswith(".so")] == []
    assert run(environment, "-m", "kpy", "--version").endswith("with the accelerator in C and compiled modules\n")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("suites", SUITES)
def test_compiled_kpy_passes(suites: str, environment: dict[str, str]) -> None:
    copy = environment["PYTHONPATH"].split(":")[0]
    deselected = [f"--deselect={test}" for test in LEFT_OUT]
    run(environment, "-c", PYTEST, "-n", "0", "-o", f"pythonpath={copy} .", *deselected, *suites.split())
