"""InitProducerId: an id for an idempotent producer; fences the last one of a transactional id (KIP-98, KIP-360).

v6 (KIP-939) is not stable in Apache Kafka 4.3 yet: brokers do not offer it unless told to.
"""

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
    "transactional_id" / nullable(TransactionalId),  # null for a producer that is only idempotent
    "transaction_timeout_ms" / Int32,  # after which the coordinator aborts it
    since(3, default(-1, "producer_id" / ProducerId)),  # to bump its epoch, -1 for a new one (KIP-360)
    since(3, default(-1, "producer_epoch" / Int16)),
    since(6, "enable2_pc" / Bool),  # two-phase commit (KIP-939)
    since(6, "keep_prepared_txn" / Bool),  # do not abort what is prepared (KIP-939)
)

InitProducerIdResponse = response(
    22,
    versions("0-6", flexible="2+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(-1, "producer_id" / ProducerId),
    "producer_epoch" / Int16,
    since(6, default(-1, "ongoing_txn_producer_id" / ProducerId)),  # of the transaction that was kept, -1 for none
    since(6, default(-1, "ongoing_txn_producer_epoch" / Int16)),
)
