"""AddOffsetsToTxn: a producer is about to commit a consumer group's offsets within its transaction (KIP-98)."""

from protocol.grammar import ErrorCode, GroupId, Int16, Int32, ProducerId, TransactionalId, request, response, versions

AddOffsetsToTxnRequest = request(
    25,
    versions("0-4", flexible="3+"),
    "transactional_id" / TransactionalId,
    "producer_id" / ProducerId,
    "producer_epoch" / Int16,
    "group_id" / GroupId,
)

AddOffsetsToTxnResponse = response(
    25,
    versions("0-4", flexible="3+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
)
