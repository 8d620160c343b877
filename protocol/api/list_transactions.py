"""ListTransactions."""

from protocol.grammar import (
    ErrorCode,
    Int32,
    Int64,
    ProducerId,
    String,
    TransactionalId,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

ListTransactionsRequest = request(
    66,
    versions("0-2", flexible="0+"),
    "state_filters" / array(String),
    "producer_id_filters" / array(ProducerId),
    since(1, default(-1, "duration_filter" / Int64)),
    since(2, default(None, "transactional_id_pattern" / nullable(String))),
)

TransactionState = struct(
    "TransactionState",
    "transactional_id" / TransactionalId,
    "producer_id" / ProducerId,
    "transaction_state" / String,
)

ListTransactionsResponse = response(
    66,
    versions("0-2", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "unknown_state_filters" / array(String),
    "transaction_states" / array(TransactionState),
)
