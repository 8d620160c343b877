"""The tools of each version of Apache Kafka, pointed at the module's broker."""

import pytest

from compat.harness import BrokerProcess
from compat.java.kafka_tools import VERSIONS, KafkaTools


@pytest.fixture(params=VERSIONS)
def tools(request: pytest.FixtureRequest, broker: BrokerProcess) -> KafkaTools:
    return KafkaTools(request.param, broker.bootstrap)
