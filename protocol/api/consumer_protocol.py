"""What consumers put into JoinGroup's metadata and SyncGroup's assignments when the protocol type is "consumer".

The broker passes these bytes on; it reads them for OffsetDelete and to describe groups.
"""

from protocol.grammar import Bytes, Int32, String, TopicName, array, default, nullable, record, since, struct, versions

TopicPartition = struct(
    "TopicPartition",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

ConsumerProtocolSubscription = record(
    versions("0-3"),
    "topics" / array(String),  # what the member subscribes to
    default(None, "user_data" / nullable(Bytes)),  # opaque to Kafka, for the assignor
    since(1, "owned_partitions" / array(TopicPartition)),  # what the member holds already, for cooperative assignors
    since(2, default(-1, "generation_id" / Int32)),  # in which the owned partitions were assigned
    since(3, default(None, "rack_id" / nullable(String))),  # where the member is (KIP-881)
)

ConsumerProtocolAssignment = record(
    versions("0-3"),
    "assigned_partitions" / array(TopicPartition),
    default(None, "user_data" / nullable(Bytes)),  # opaque to Kafka, for the assignor
)
