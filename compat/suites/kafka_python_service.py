"""Stands in for test/service.py of kafka-python, which its source distribution leaves out: see kafka_python.py."""


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
