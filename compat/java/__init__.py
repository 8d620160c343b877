"""Apache Kafka's own command-line tools and its Java clients, at three versions."""
