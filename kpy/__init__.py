"""kpy: a Kafka-compatible broker. Start it with `kpy start`."""

__version__ = "0.1.0"
