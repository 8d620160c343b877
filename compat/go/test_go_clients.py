"""Go's clients: franz-go and sarama in groups (the *_test.go here), and franz-go's own tests, against one broker.

What of the clients' own tests is run is in kgo.tests.allow; FINDINGS.md says why the others are not.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from compat.harness import BrokerFactory, BrokerProcess, require_tool

HERE = Path(__file__).parent
BUILD_AND_RUN_TIMEOUT_S = 1_500.0
"""The first build of a client and its tests takes minutes on a machine that has not built them before."""
KGO = "github.com/twmb/franz-go/pkg/kgo"
KGO_ENVIRONMENT = {"KGO_TEST_RF": "1", "KGO_TEST_RECORDS": "20000", "KGO_TEST_MAX_TOPIC_PARTS": "6"}


def allowed(name: str) -> list[str]:
    """The tests in a list: one a line, after `#` why it is there."""
    lines = [line.partition("#")[0].strip() for line in (HERE / name).read_text().splitlines()]
    return [line for line in lines if line]


def go_test(*arguments: str, **environment: str) -> dict[str, str]:
    """Run `go test`; test -> pass, fail or skip. Fails with all that was said when a test does."""
    command = [require_tool("go"), "test", "-json", "-count=1", "-timeout=20m", *arguments]
    result = subprocess.run(
        command,
        cwd=HERE,
        # A newer Go than the one that is installed comes through the module proxy, with a checksum.
        env=os.environ | {"GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"} | environment,
        capture_output=True,
        text=True,
        timeout=BUILD_AND_RUN_TIMEOUT_S,
        check=False,
    )
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    said = "".join(event.get("Output", "") for event in events)
    outcomes = {
        event["Test"]: event["Action"]
        for event in events
        if "Test" in event and event["Action"] in ("pass", "fail", "skip")
    }
    assert result.returncode == 0, f"{outcomes}\n{said[-20_000:]}\n{result.stderr}"
    return outcomes


def assert_all_passed(outcomes: dict[str, str], expected: Sequence[str]) -> None:
    assert {name: outcomes.get(name) for name in expected} == dict.fromkeys(expected, "pass")


@pytest.mark.parametrize(
    "test",
    [
        "TestFranzGoGroupsOfEveryBalancerShareAllPartitions",
        "TestFranzGoStaticMemberComesBackToItsPartitions",
        "TestSaramaGroupsOfEveryStrategyShareAllPartitions",
        "TestSaramaStaticMemberComesBackUnderAnotherIdInTheSameGeneration",
        "TestSaramaAdministersGroups",
    ],
)
def test_go_clients_in_groups(test: str, broker: BrokerProcess) -> None:
    assert_all_passed(go_test("-run", f"^{test}$", ".", KPY_BOOTSTRAP=broker.bootstrap), [test])


def test_franz_gos_own_tests(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    names = allowed("kgo.tests.allow")
    pattern = "^(" + "|".join(names) + ")$"
    assert_all_passed(go_test("-run", pattern, KGO, KGO_SEEDS=broker.bootstrap, **KGO_ENVIRONMENT), names)
