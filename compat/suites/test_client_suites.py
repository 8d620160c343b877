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

# What takes minutes, even when it has been built, is left to those who ask for it.
ON_REQUEST = pytest.mark.skipif("KPY_CLIENT_SUITES" not in os.environ, reason="takes ten minutes: make client-suites")
SUITES = (
    pytest.param(kafka_python.SUITE, id="kafka-python"),
    pytest.param(rskafka.SUITE, id="rskafka"),
    pytest.param(librdkafka.SUITE, id="librdkafka", marks=ON_REQUEST),
    pytest.param(librdkafka.SUITE_WITHOUT_AUTO_CREATION, id="librdkafka-noautocreate", marks=ON_REQUEST),
)


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("suite", SUITES)
def test_a_clients_own_tests_end_as_expected(suite: Suite, fresh_broker: BrokerFactory, tmp_path: Path) -> None:
    BUILD_DIR.mkdir(parents=True, exist_ok=True)
    source = suite.prepare(BUILD_DIR)
    report = tmp_path / f"{suite.name}.report"
    outcomes = suite.run(source, fresh_broker(suite.settings).bootstrap, report)
    differences = surprises(expectations(HERE / f"{suite.name}.tests"), outcomes)
    assert not differences, "\n".join([*differences, f"What the tests printed: {report.with_suffix('.log')}"])
