"""UpdateMetadata: the ZooKeeper-mode controller tells every broker about brokers and partitions."""

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
    "controller_epoch" / Int32,  # of the sender; brokers ignore an older controller
    "leader" / BrokerId,
    "leader_epoch" / Int32,
    "isr" / array(BrokerId),
    "zk_version" / Int32,  # of the partition's znode
    "replicas" / array(BrokerId),
    since(4, "offline_replicas" / array(BrokerId)),  # on brokers or directories that are down
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
    since(3, "listener" / String),  # its name
    "security_protocol" / Int16,  # 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL
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
    since(8, "is_kraft_controller" / Bool),  # whether the sender is a KRaft controller, during a migration
    since(8, tagged(0, "type" / Int8)),  # 0 unknown, 1 some partitions, 2 all partitions
    "controller_epoch" / Int32,  # of the sender; brokers ignore an older controller
    # changes at each registration of the broker; tells an old incarnation from a new one
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
