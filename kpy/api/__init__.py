"""One handler file for each Kafka API, and the table of them (registry.py)."""
