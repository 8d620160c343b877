"""TxnOffsetCommit (28), versions 0-5.

Offsets of a consumer group that count when the producer's transaction is committed, and are forgotten when it is
aborted; until then OffsetFetch shows the ones before. Version 3 names the member that the producer works for, which
fences it together with that (KIP-447), 4 knows TRANSACTION_ABORTABLE, 5 adds the group's partition to the transaction
itself where older clients have to send AddOffsetsToTxn before (KIP-890).

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.transactional_writes import errors_of
from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.coordinator import and_then
from kpy.errors import ApiError, ErrorCode
from kpy.group.answers import refusal
from kpy.pending import Pending
from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnResult
from kpy.wire.txn_offset_commit import TxnOffsetCommitRequest, TxnOffsetCommitResponse

TRANSACTION_ABORTABLE_SINCE = 4
ADDS_PARTITIONS_SINCE = 5

TRANSLATED = {
    ErrorCode.PRODUCER_FENCED: ErrorCode.INVALID_PRODUCER_EPOCH,
    ErrorCode.CONCURRENT_TRANSACTIONS: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NOT_COORDINATOR: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.NETWORK_EXCEPTION: ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
}
"""What the transaction's coordinator says, in words that mean the same when a group's coordinator says them."""


def txn_offset_commit(
    request: TxnOffsetCommitRequest, client: Client, broker: Broker
) -> TxnOffsetCommitResponse | Pending[TxnOffsetCommitResponse]:
    version = client.version
    return and_then(_admit(request, version, broker), lambda error: _commit(request, error, client, version, broker))


def _admit(request: TxnOffsetCommitRequest, version: int, broker: Broker) -> ErrorCode | Pending[ErrorCode]:
    """NONE where the group's partition is known to be in the transaction, or nobody wants to know."""
    index = broker.groups.partition_for(request.group_id)
    adds = version >= ADDS_PARTITIONS_SINCE
    if not adds and not broker.config.transaction_partition_verification_enable:
        return ErrorCode.NONE
    producer_id, producer_epoch = request.producer_id, request.producer_epoch
    try:
        state = broker.replicas.partition(CONSUMER_OFFSETS, index).log.producer_state
    except ApiError:
        return ErrorCode.NONE  # The group's coordinator is elsewhere, as the answer will say.
    if state.is_in_transaction(producer_id, producer_epoch):
        return ErrorCode.NONE
    partitions = [(CONSUMER_OFFSETS, index)]
    answer = broker.transactions.admit(request.transactional_id, producer_id, producer_epoch, partitions, adds=adds)
    if not isinstance(answer, Pending):
        return _error_of(answer)
    watch = state.watch(producer_id)

    def answered(result: AddPartitionsToTxnResult) -> ErrorCode:
        still_holds = state.unwatch(watch)
        return _error_of(result) or (ErrorCode.NONE if still_holds else ErrorCode.INVALID_TXN_STATE)

    return and_then(answer, answered)


def _error_of(result: AddPartitionsToTxnResult) -> ErrorCode:
    return next(iter(errors_of(result).values()), ErrorCode.NONE)


def _commit(
    request: TxnOffsetCommitRequest, refused: ErrorCode, client: Client, version: int, broker: Broker
) -> TxnOffsetCommitResponse | Pending[TxnOffsetCommitResponse]:
    if refused:
        error = TRANSLATED.get(refused, refused)
        is_new = error is ErrorCode.TRANSACTION_ABORTABLE and version < TRANSACTION_ABORTABLE_SINCE
        return refusal(request, version, ErrorCode.INVALID_TXN_STATE if is_new else error)
    return broker.groups.tell(request.group_id, request, client)
