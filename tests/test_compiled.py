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
    "tests/transcripts tests/property",
    "tests/broker tests/fault/test_storage_histories.py tests/fault/test_kill9.py",
    "tests/sim",
    "compat/kafka_python",
)


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
    run(environment, "-m", "pytest", "-n", "0", "-o", f"pythonpath={copy} .", *suites.split())
