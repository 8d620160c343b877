"""Both brokers, started once for all scenarios."""

from collections.abc import Iterator

import pytest

from compat.differential.apache_kafka import running_apache_kafka
from compat.differential.runner import Pair
from compat.harness import BACKENDS, BrokerProcess

# Both brokers get all of these. Old timestamps must not be expired while a scenario runs.
SETTINGS = {"broker.id": "1", "log.retention.ms": "-1", "group.min.session.timeout.ms": "100"}


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """kpy and Apache Kafka, both ready to coordinate groups and to hand out producer ids."""
    work_dir = tmp_path_factory.mktemp("differential")
    with running_apache_kafka(work_dir / "apache-kafka", SETTINGS) as theirs:
        ours = BrokerProcess(work_dir / "kpy", SETTINGS, BACKENDS["kpy"])
        ours.start()
        try:
            ready = Pair(ours.port, theirs.port)
            ready.warm_up()
            yield ready
        finally:
            ours.close()
