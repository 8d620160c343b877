"""The same requests to kpy and to Apache Kafka: whatever the answers differ in is a finding."""
