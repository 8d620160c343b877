"""kpy in one cluster with Apache Kafka brokers: followers and leaders of each other."""
