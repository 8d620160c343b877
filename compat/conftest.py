"""Fixtures that give tests a running broker, and its log in the report of a test that fails."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from compat.harness import BrokerFactory, BrokerProcess, running_broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker for all tests of a module."""
    with running_broker(tmp_path_factory.mktemp("broker")) as started:
        yield started


@pytest.fixture
def fresh_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerFactory]:
    """A factory of brokers for one test: for settings of its own, and for tests that stop or kill."""
    factory = BrokerFactory(tmp_path_factory.mktemp("fresh"))
    try:
        yield factory
    finally:
        factory.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """kafka-python leaves sockets unclosed that could not connect; when they are collected is nobody's fault."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for fixture in item.funcargs.values():
            brokers = fixture.brokers if isinstance(fixture, BrokerFactory) else [fixture]
            for started in brokers:
                if isinstance(started, BrokerProcess):
                    report.sections.append((f"log of the broker at {started.bootstrap}", started.log_tail()))
    return report
