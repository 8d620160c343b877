"""Clients' own tests, as their authors published them, against kpy; README.md says which there are and which not."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from compat.harness import BrokerFactory
from compat.suites import kafka_go, kafka_python, librdkafka, rskafka, sarama
from compat.suites.expectations import Outcome, Suite, expectations, surprises

HERE = Path(__file__).parent
BUILD_DIR = HERE.parents[1] / "build" / "suites"
TIMEOUT_S = 3_000
"""Most of it is for building; what a run may take is each suite's own affair."""

SUITES = (kafka_python.SUITE, rskafka.SUITE)
# What takes minutes is left to those who ask for it: make client-suites.
SUITES_ON_REQUEST = (librdkafka.SUITE, librdkafka.SUITE_WITHOUT_AUTO_CREATION)
ON_BROKERS_OF_THEIR_OWN = {"kafka-go": kafka_go, "sarama": sarama}
IS_ASKED_FOR = "KPY_CLIENT_SUITES" in os.environ

Test = Callable[[str, Path], None]


def on_request(test: Test) -> Test:
    """A test that is not there, rather than skipped, unless it is asked for."""
    test.__test__ = IS_ASKED_FOR  # type: ignore[attr-defined]  # pytest's own
    return test


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("suite", SUITES + SUITES_ON_REQUEST if IS_ASKED_FOR else SUITES, ids=lambda suite: suite.name)
def test_a_clients_own_tests_end_as_expected(suite: Suite, fresh_broker: BrokerFactory, tmp_path: Path) -> None:
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    source = suite.prepare(BUILD_DIR)
    report = tmp_path / f"{suite.name}.report"
    outcomes = suite.run(source, fresh_broker(suite.settings).bootstrap, report)
    check(suite.name, outcomes, report)


@pytest.mark.timeout(TIMEOUT_S)
@on_request
@pytest.mark.parametrize("name", ON_BROKERS_OF_THEIR_OWN)
def test_a_clients_own_tests_on_brokers_of_their_own_end_as_expected(name: str, tmp_path: Path) -> None:
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    suite, report = ON_BROKERS_OF_THEIR_OWN[name], tmp_path / f"{name}.report"
    check(name, suite.run(suite.prepare(BUILD_DIR), tmp_path, report), report)


def check(name: str, outcomes: Mapping[str, Outcome], report: Path) -> None:
    differences = surprises(expectations(HERE / f"{name}.tests"), outcomes)
    assert not differences, "\n".join([*differences, f"What the tests printed: {report.with_suffix('.log')}"])
