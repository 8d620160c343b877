"""DescribeTransactions: by transactional id (KIP-664)."""

from protocol.grammar import (
    ErrorCode,
    Int16,
    Int32,
    Int64,
    ProducerId,
    String,
    TopicName,
    TransactionalId,
    array,
    request,
    response,
    struct,
    versions,
)

DescribeTransactionsRequest = request(
    65,
    versions("0", flexible="0+"),
    "transactional_ids" / array(TransactionalId),
)

TopicData = struct(
    "TopicData",
    "topic" / TopicName,
    "partitions" / array(Int32),
)

TransactionState = struct(
    "TransactionState",
    "error_code" / ErrorCode,
    "transactional_id" / TransactionalId,
    "transaction_state" / String,
    "transaction_timeout_ms" / Int32,  # after which the coordinator aborts it
    "transaction_start_time_ms" / Int64,  # -1 if it has not begun
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    "topics" / array(TopicData),  # in the open transaction
)

DescribeTransactionsResponse = response(
    65,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "transaction_states" / array(TransactionState),
)
