"""AddPartitionsToTxn: partitions join a transaction, or a broker asks whether they have (KIP-98, KIP-890)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int16,
    Int32,
    ProducerId,
    TopicName,
    TransactionalId,
    array,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

AddPartitionsToTxnTopic = struct(
    "AddPartitionsToTxnTopic",
    "name" / TopicName,
    "partitions" / array(Int32),
)

AddPartitionsToTxnTransaction = struct(
    "AddPartitionsToTxnTransaction",
    "transactional_id" / TransactionalId,
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    "verify_only" / Bool,  # only ask whether the partitions are in the transaction (KIP-890)
    "topics" / array(AddPartitionsToTxnTopic),
)

AddPartitionsToTxnRequest = request(
    24,
    versions("0-5", flexible="3+"),
    since(4, "transactions" / array(AddPartitionsToTxnTransaction)),  # sent by brokers, for many producers at once
    until(3, "v3_and_below_transactional_id" / TransactionalId),
    until(3, "v3_and_below_producer_id" / ProducerId),
    until(3, "v3_and_below_producer_epoch" / Int16),
    until(3, "v3_and_below_topics" / array(AddPartitionsToTxnTopic)),
)

AddPartitionsToTxnPartitionResult = struct(
    "AddPartitionsToTxnPartitionResult",
    "partition_index" / Int32,
    "partition_error_code" / ErrorCode,
)

AddPartitionsToTxnTopicResult = struct(
    "AddPartitionsToTxnTopicResult",
    "name" / TopicName,
    "results_by_partition" / array(AddPartitionsToTxnPartitionResult),
)

AddPartitionsToTxnResult = struct(
    "AddPartitionsToTxnResult",
    "transactional_id" / TransactionalId,
    "topic_results" / array(AddPartitionsToTxnTopicResult),
)

AddPartitionsToTxnResponse = response(
    24,
    versions("0-5", flexible="3+"),
    "throttle_time_ms" / Int32,
    since(4, "error_code" / ErrorCode),
    since(4, "results_by_transaction" / array(AddPartitionsToTxnResult)),
    until(3, "results_by_topic_v3_and_below" / array(AddPartitionsToTxnTopicResult)),
)
