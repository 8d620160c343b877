"""A Spring Cloud Stream application with the Kafka binder's defaults."""
