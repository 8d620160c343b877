"""The integration tests of rskafka, a client in Rust with a protocol implementation of its own, from its crate.

The crate's own development dependencies bring librdkafka, a JVM and a benchmark; rskafka/Cargo.toml asks only for what
the tests need that use neither. Those in produce_consume.rs compare rskafka with librdkafka and the Java client, and
are left out.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

from compat.harness import require_tool
from compat.suites.expectations import Outcome, Suite
from compat.suites.logged import run_logged

HERE = Path(__file__).parent
TESTS = ("client", "consumer", "producer", "test_helpers")
BUILD_TIMEOUT_S = 1_200.0
RUN_TIMEOUT_S = 300.0

RESULT = re.compile(r"^test (\S+)(?: - .*)? \.\.\. (ok|FAILED|ignored)", re.MULTILINE)


def prepare(build_dir: Path) -> Path:
    """A package with the crate's tests, built against the versions that Cargo.lock pins."""
    package = build_dir / "rskafka"
    shutil.copytree(HERE / "rskafka", package, dirs_exist_ok=True)
    (package / "suite.rs").touch()
    manifest = ["--locked", "--manifest-path", str(package / "Cargo.toml")]
    cargo = require_tool("cargo")
    metadata = subprocess.run(
        [cargo, "metadata", "--format-version=1", *manifest], capture_output=True, check=True, timeout=BUILD_TIMEOUT_S
    )
    (crate,) = [each for each in json.loads(metadata.stdout)["packages"] if each["name"] == "rskafka"]
    (package / "tests").mkdir(exist_ok=True)
    for name in TESTS:
        shutil.copy2(Path(crate["manifest_path"]).parent / "tests" / f"{name}.rs", package / "tests")
    with (package / "build.log").open("wb") as log:
        command = [cargo, "test", "--quiet", "--no-run", *manifest]
        subprocess.run(command, stdout=log, stderr=log, check=True, timeout=BUILD_TIMEOUT_S)
    return package


def run(package: Path, bootstrap: str, report: Path) -> dict[str, Outcome]:
    """Test -> how it ended. What the tests printed goes to a file beside `report`."""
    command = [require_tool("cargo"), "test", "--locked", "--no-fail-fast"]
    environment = {"TEST_INTEGRATION": "1", "KAFKA_CONNECT": bootstrap, "TEST_BROKER_IMPL": "kafka"}
    log = report.with_suffix(".log")
    run_logged(command, log, package, environment, RUN_TIMEOUT_S)
    return {name: "pass" if result == "ok" else "fail" for name, result in RESULT.findall(log.read_text())}


SUITE = Suite("rskafka", {"auto.create.topics.enable": "false"}, prepare, run)
