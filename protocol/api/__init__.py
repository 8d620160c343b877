"""One module per Kafka API: its request and its response, every field once, for all versions."""
