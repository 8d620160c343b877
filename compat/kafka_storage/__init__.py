"""Data directories handed from kpy to Apache Kafka 3.9.1 and back."""
