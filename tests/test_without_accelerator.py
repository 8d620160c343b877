"""Whatever C does where kpy's accelerator is compiled, Python does elsewhere: so its tests run once more without it.

The accelerator itself is tested beside Python, where a C compiler is, by the tests that ask for it (the fixture
`accelerator`), and by all others where it lies beside kpy, as `make test` and an install put it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat.harness import unavailable
from kpy.native import NATIVE

ROOT = Path(__file__).parent.parent
SUITES = (
    "tests/unit/records",
    "tests/unit/wire",
    "tests/property/test_records_batches.py",
    "tests/property/test_wire_codec.py",
    "tests/property/test_wire_record_layouts.py",
    "tests/broker/test_broker_bad_input.py",
    "tests/broker/test_broker_fetch.py",
    "tests/fuzz",
    "tests/guard",
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("suite", SUITES)
def test_python_alone_passes(suite: str) -> None:
    if NATIVE is None:
        unavailable("the accelerator is not compiled, so all tests run without it")
    command = [sys.executable, "-m", "pytest", suite, "--ignore-glob=*_native.py", "--ignore-glob=*_sanitized.py"]
    environment = os.environ | {"KPY_NATIVE": "0"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
