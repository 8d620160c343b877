"""The benchmark: the same work for kpy and for Apache Kafka, side by side in one run. See README.md."""
