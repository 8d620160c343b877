"""InitProducerId."""

from protocol.grammar import (
    Bool,
    ErrorCode,
    Int16,
    Int32,
    ProducerId,
    TransactionalId,
    default,
    nullable,
    request,
    response,
    since,
    versions,
)

InitProducerIdRequest = request(
    22,
    versions("0-6", flexible="2+"),
    "transactional_id" / nullable(TransactionalId),
    "transaction_timeout_ms" / Int32,
    since(3, default(-1, "producer_id" / ProducerId)),
    since(3, default(-1, "producer_epoch" / Int16)),
    since(6, "enable2_pc" / Bool),
    since(6, "keep_prepared_txn" / Bool),
)

InitProducerIdResponse = response(
    22,
    versions("0-6", flexible="2+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(-1, "producer_id" / ProducerId),
    "producer_epoch" / Int16,
    since(6, default(-1, "ongoing_txn_producer_id" / ProducerId)),
    since(6, default(-1, "ongoing_txn_producer_epoch" / Int16)),
)
