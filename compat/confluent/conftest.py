"""The clients of a test, closed at its end."""

from collections.abc import Iterator

import pytest

from compat.confluent.clients import Clients
from compat.harness import BrokerProcess


@pytest.fixture
def clients(broker: BrokerProcess) -> Iterator[Clients]:
    with Clients(broker.bootstrap) as made:
        yield made
