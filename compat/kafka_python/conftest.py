"""The clients of a test, closed at its end."""

import gc
import warnings
from collections.abc import Iterator

import pytest

from compat.harness import BrokerProcess

with warnings.catch_warnings():
    # kafka-python loads its schemas by a function of importlib that is deprecated since Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    from compat.kafka_python.clients import Clients


@pytest.fixture
def clients(broker: BrokerProcess) -> Iterator[Clients]:
    with Clients(broker.bootstrap) as made:
        yield made


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """kafka-python leaves sockets that could not connect unclosed: collect them here, where that is no error."""
    yield
    gc.collect()
