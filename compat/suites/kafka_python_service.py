"""Stands in for test/service.py of kafka-python, which its source distribution leaves out: see kafka_python.py.

It is what the suite's tests import first, so what its clients need to be told is told here. A consumer that is given
its topics while its own first Metadata request is under way forgets to ask for them (kafka/cluster.py, set_topics), in
one of some hundred runs on a busy machine, and asks again only after metadata.max.age.ms: five minutes.
"""

from kafka import KafkaConsumer

KafkaConsumer.DEFAULT_CONFIG["metadata_max_age_ms"] = 1_000


class ExternalService:
    """A broker that somebody else started and will stop."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass


class SpawnedService:
    """The suite would start Apache Kafka by this; there is none."""
