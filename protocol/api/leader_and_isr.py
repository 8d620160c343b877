"""LeaderAndIsr: the ZooKeeper-mode controller tells a broker which partitions to lead and which to follow."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    Int64,
    String,
    TopicName,
    Uuid,
    array,
    default,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

LeaderAndIsrPartitionState = struct(
    "LeaderAndIsrPartitionState",
    until(1, "topic_name" / TopicName),
    "partition_index" / Int32,
    "controller_epoch" / Int32,  # of the sender; brokers ignore an older controller
    "leader" / BrokerId,
    "leader_epoch" / Int32,
    "isr" / array(BrokerId),
    "partition_epoch" / Int32,  # version of the partition's state in the metadata store
    "replicas" / array(BrokerId),
    since(3, "adding_replicas" / array(BrokerId)),  # on their way in, during a reassignment
    since(3, "removing_replicas" / array(BrokerId)),  # on their way out, during a reassignment
    since(1, "is_new" / Bool),  # created just now, so the log has to be made
    since(6, "leader_recovery_state" / Int8),  # 0 recovered, 1 recovering from an unclean election
)

LeaderAndIsrTopicState = struct(
    "LeaderAndIsrTopicState",
    "topic_name" / TopicName,
    since(5, "topic_id" / Uuid),
    "partition_states" / array(LeaderAndIsrPartitionState),
)

LeaderAndIsrLiveLeader = struct(
    "LeaderAndIsrLiveLeader",
    "broker_id" / BrokerId,
    "host_name" / String,
    "port" / Int32,
)

LeaderAndIsrRequest = request(
    4,
    versions("0-7", flexible="4+"),
    "controller_id" / BrokerId,
    since(7, "is_kraft_controller" / Bool),  # whether the sender is a KRaft controller, during a migration
    "controller_epoch" / Int32,  # of the sender; brokers ignore an older controller
    # changes at each registration of the broker; tells an old incarnation from a new one
    since(2, default(-1, "broker_epoch" / Int64)),
    since(5, "type" / Int8),  # 0 unknown, 1 some partitions, 2 all partitions of the broker
    until(1, "ungrouped_partition_states" / array(LeaderAndIsrPartitionState)),
    since(2, "topic_states" / array(LeaderAndIsrTopicState)),
    "live_leaders" / array(LeaderAndIsrLiveLeader),  # the brokers that lead any of these
)

LeaderAndIsrPartitionError = struct(
    "LeaderAndIsrPartitionError",
    until(4, "topic_name" / TopicName),
    "partition_index" / Int32,
    "error_code" / ErrorCode,
)

LeaderAndIsrTopicError = struct(
    "LeaderAndIsrTopicError",
    "topic_id" / Uuid,
    "partition_errors" / array(LeaderAndIsrPartitionError),
)

LeaderAndIsrResponse = response(
    4,
    versions("0-7", flexible="4+"),
    "error_code" / ErrorCode,
    until(4, "partition_errors" / array(LeaderAndIsrPartitionError)),
    since(5, "topics" / array(LeaderAndIsrTopicError)),
)
