"""The partitions of this broker, and where fetches wait."""
