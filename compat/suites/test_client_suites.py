"""Clients' own tests, as their authors published them, against kpy; README.md says which there are and which not."""

import os
from pathlib import Path

import pytest

from compat.harness import BrokerFactory
from compat.suites import kafka_python, librdkafka, rskafka
from compat.suites.expectations import Suite, expectations, surprises

HERE = Path(__file__).parent
BUILD_DIR = HERE.parents[1] / "build" / "suites"
TIMEOUT_S = 3_000
"""Most of it is for building; what a run may take is each suite's own affair."""

SUITES = (kafka_python.SUITE, rskafka.SUITE)
# What takes ten minutes is left to those who ask for it: make client-suites.
SUITES_ON_REQUEST = (librdkafka.SUITE, librdkafka.SUITE_WITHOUT_AUTO_CREATION)
ASKED_FOR = SUITES + SUITES_ON_REQUEST if "KPY_CLIENT_SUITES" in os.environ else SUITES


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("suite", ASKED_FOR, ids=lambda suite: suite.name)
def test_a_clients_own_tests_end_as_expected(suite: Suite, fresh_broker: BrokerFactory, tmp_path: Path) -> None:
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    source = suite.prepare(BUILD_DIR)
    report = tmp_path / f"{suite.name}.report"
    outcomes = suite.run(source, fresh_broker(suite.settings).bootstrap, report)
    differences = surprises(expectations(HERE / f"{suite.name}.tests"), outcomes)
    assert not differences, "\n".join([*differences, f"What the tests printed: {report.with_suffix('.log')}"])
