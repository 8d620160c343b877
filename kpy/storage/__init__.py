"""The log on disk, in Apache Kafka's format: segments, indexes, checkpoints, recovery, retention and compaction."""
