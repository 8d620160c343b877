"""Consumer protocol."""

from protocol.grammar import Bytes, Int32, String, TopicName, array, default, nullable, record, since, struct, versions

TopicPartition = struct(
    "TopicPartition",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

ConsumerProtocolSubscription = record(
    versions("0-3"),
    "topics" / array(String),
    default(None, "user_data" / nullable(Bytes)),
    since(1, "owned_partitions" / array(TopicPartition)),
    since(2, default(-1, "generation_id" / Int32)),
    since(3, default(None, "rack_id" / nullable(String))),
)

ConsumerProtocolAssignment = record(
    versions("0-3"),
    "assigned_partitions" / array(TopicPartition),
    default(None, "user_data" / nullable(Bytes)),
)
