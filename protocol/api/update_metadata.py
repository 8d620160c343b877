"""UpdateMetadata."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int8,
    Int16,
    Int32,
    Int64,
    String,
    TopicName,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    tagged,
    until,
    versions,
)

UpdateMetadataPartitionState = struct(
    "UpdateMetadataPartitionState",
    until(4, "topic_name" / TopicName),
    "partition_index" / Int32,
    "controller_epoch" / Int32,
    "leader" / BrokerId,
    "leader_epoch" / Int32,
    "isr" / array(BrokerId),
    "zk_version" / Int32,
    "replicas" / array(BrokerId),
    since(4, "offline_replicas" / array(BrokerId)),
)

UpdateMetadataTopicState = struct(
    "UpdateMetadataTopicState",
    "topic_name" / TopicName,
    since(7, "topic_id" / Uuid),
    "partition_states" / array(UpdateMetadataPartitionState),
)

UpdateMetadataEndpoint = struct(
    "UpdateMetadataEndpoint",
    "port" / Int32,
    "host" / String,
    since(3, "listener" / String),
    "security_protocol" / Int16,
)

UpdateMetadataBroker = struct(
    "UpdateMetadataBroker",
    "id" / BrokerId,
    until(0, "v0_host" / String),
    until(0, "v0_port" / Int32),
    since(1, "endpoints" / array(UpdateMetadataEndpoint)),
    since(2, "rack" / nullable(String)),
)

UpdateMetadataRequest = request(
    6,
    versions("0-8", flexible="6+"),
    "controller_id" / BrokerId,
    since(8, "is_kraft_controller" / Bool),
    since(8, tagged(0, "type" / Int8)),
    "controller_epoch" / Int32,
    since(5, default(-1, "broker_epoch" / Int64)),
    until(4, "ungrouped_partition_states" / array(UpdateMetadataPartitionState)),
    since(5, "topic_states" / array(UpdateMetadataTopicState)),
    "live_brokers" / array(UpdateMetadataBroker),
)

UpdateMetadataResponse = response(
    6,
    versions("0-8", flexible="6+"),
    "error_code" / ErrorCode,
)
