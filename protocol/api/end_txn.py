"""EndTxn: commits or aborts a transaction (KIP-98)."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int16,
    Int32,
    ProducerId,
    TransactionalId,
    default,
    request,
    response,
    since,
    versions,
)

EndTxnRequest = request(
    26,
    versions("0-5", flexible="3+"),
    "transactional_id" / TransactionalId,
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    "committed" / Bool,  # false aborts
)

EndTxnResponse = response(
    26,
    versions("0-5", flexible="3+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    since(5, default(-1, "producer_id" / ProducerId)),  # for the next transaction (KIP-890)
    since(5, default(-1, "producer_epoch" / Int16)),  # for the next transaction
)
