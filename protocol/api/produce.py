"""Produce: record batches to append.

v3 is the first with record batches v2, before it are message sets. Since v13 topics go by id (KIP-516).
"""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int16,
    Int32,
    Int64,
    Records,
    String,
    TopicName,
    TransactionalId,
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

PartitionProduceData = struct(
    "PartitionProduceData",
    "index" / Int32,
    "records" / nullable(Records),
)

TopicProduceData = struct(
    "TopicProduceData",
    until(12, "name" / TopicName),
    since(13, "topic_id" / Uuid),
    "partition_data" / array(PartitionProduceData),
)

ProduceRequest = request(
    0,
    versions("0-13", flexible="9+"),
    since(3, default(None, "transactional_id" / nullable(TransactionalId))),  # null outside of transactions
    "acks" / Int16,  # 0 no answer, 1 the leader has it, -1 all in-sync replicas have it
    "timeout_ms" / Int32,  # to wait for the replicas
    "topic_data" / array(TopicProduceData),
)

BatchIndexAndErrorMessage = struct(
    "BatchIndexAndErrorMessage",
    "batch_index" / Int32,  # of the record in the batch
    default(None, "batch_index_error_message" / nullable(String)),
)

LeaderIdAndEpoch = struct(
    "LeaderIdAndEpoch",
    default(-1, "leader_id" / BrokerId),  # -1 for nobody
    default(-1, "leader_epoch" / Int32),
)

PartitionProduceResponse = struct(
    "PartitionProduceResponse",
    "index" / Int32,
    "error_code" / ErrorCode,
    "base_offset" / Int64,  # of the first record
    since(2, default(-1, "log_append_time_ms" / Int64)),  # -1 where the topic keeps the producer's timestamps
    since(5, default(-1, "log_start_offset" / Int64)),
    # the records that caused the batch to be refused (KIP-467)
    since(8, "record_errors" / array(BatchIndexAndErrorMessage)),
    since(8, default(None, "error_message" / nullable(String))),  # common to the whole batch
    # sent with NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH (KIP-951)
    since(10, tagged(0, "current_leader" / LeaderIdAndEpoch)),
)

TopicProduceResponse = struct(
    "TopicProduceResponse",
    until(12, "name" / TopicName),
    since(13, "topic_id" / Uuid),
    "partition_responses" / array(PartitionProduceResponse),
)

NodeEndpoint = struct(
    "NodeEndpoint",
    "node_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    default(None, "rack" / nullable(String)),
)

ProduceResponse = response(
    0,
    versions("0-13", flexible="9+"),
    "responses" / array(TopicProduceResponse),
    since(1, "throttle_time_ms" / Int32),
    since(10, tagged(0, "node_endpoints" / array(NodeEndpoint))),  # where the leaders named above are reached (KIP-951)
)
