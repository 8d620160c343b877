"""kafkajs (groups.test.js) against one broker, by Node's own test runner."""

import os
import subprocess
from pathlib import Path

import pytest

from compat.harness import BrokerProcess, require_tool

HERE = Path(__file__).parent
INSTALL_TIMEOUT_S = 300.0
RUN_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def node() -> str:
    """Node with kafkajs beside the tests, as package-lock.json pins it."""
    installed = HERE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        npm = [require_tool("npm"), "ci", "--no-audit", "--no-fund"]
        result = subprocess.run(npm, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    return require_tool("node")


def test_kafkajs_in_groups(node: str, broker: BrokerProcess) -> None:
    result = subprocess.run(
        [node, "--test", "--test-reporter=tap", "groups.test.js"],
        cwd=HERE,
        env=os.environ | {"KPY_BOOTSTRAP": broker.bootstrap, "KAFKAJS_NO_PARTITIONER_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}{result.stderr}"
    assert "# pass 2" in result.stdout
