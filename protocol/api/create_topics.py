"""CreateTopics, and since v5 what was created (KIP-4, KIP-525)."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int8,
    Int16,
    Int32,
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
    versions,
)

CreatableReplicaAssignment = struct(
    "CreatableReplicaAssignment",
    "partition_index" / Int32,
    "broker_ids" / array(BrokerId),  # the replicas; the first is the preferred leader
)

CreatableTopicConfig = struct(
    "CreatableTopicConfig",
    "name" / String,  # of the config
    "value" / nullable(String),
)

CreatableTopic = struct(
    "CreatableTopic",
    "name" / TopicName,
    "num_partitions" / Int32,  # -1 for the broker's default, or where assignments are given
    "replication_factor" / Int16,  # -1 for the broker's default, or where assignments are given
    "assignments" / array(CreatableReplicaAssignment),  # by partition, or empty to let the broker choose
    "configs" / array(CreatableTopicConfig),
)

CreateTopicsRequest = request(
    19,
    versions("0-7", flexible="5+"),
    "topics" / array(CreatableTopic),
    default(60000, "timeout_ms" / Int32),
    since(1, "validate_only" / Bool),  # check everything, change nothing
)

CreatableTopicConfigs = struct(
    "CreatableTopicConfigs",
    "name" / String,  # of the config
    "value" / nullable(String),
    "read_only" / Bool,
    default(-1, "config_source" / Int8),  # a ConfigSource: 1 topic, 2 broker, 3 all brokers, 4 static, 5 default
    "is_sensitive" / Bool,  # its value is never sent
)

CreatableTopicResult = struct(
    "CreatableTopicResult",
    "name" / TopicName,
    since(7, "topic_id" / Uuid),
    "error_code" / ErrorCode,
    since(1, "error_message" / nullable(String)),
    since(5, tagged(0, "topic_config_error_code" / ErrorCode)),  # why the configs are not shown
    since(5, default(-1, "num_partitions" / Int32)),
    since(5, default(-1, "replication_factor" / Int16)),
    since(5, "configs" / nullable(array(CreatableTopicConfigs))),
)

CreateTopicsResponse = response(
    19,
    versions("0-7", flexible="5+"),
    since(2, "throttle_time_ms" / Int32),
    "topics" / array(CreatableTopicResult),
)
