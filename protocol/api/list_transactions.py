"""ListTransactions: those that this broker coordinates (KIP-664)."""

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
    "state_filters" / array(String),  # all states if empty
    "producer_id_filters" / array(ProducerId),  # all producers if empty
    since(1, default(-1, "duration_filter" / Int64)),  # open for longer than so many ms; -1 for any
    since(2, default(None, "transactional_id_pattern" / nullable(String))),  # RE2 syntax; null or empty for any
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
    "unknown_state_filters" / array(String),  # of those asked for
    "transaction_states" / array(TransactionState),
)
