"""Transactional records in a Produce: whether their partitions are in the transaction, asked before they are written.

A producer of transaction version 2 adds partitions to its transaction by writing to them; from an older one the
coordinator must have heard before, or the write is refused: nobody would ever end a transaction that its coordinator
does not know of. Asked once a transaction and partition: the partition itself remembers who has written. While a
coordinator on another broker is asked, the transaction may end: then its answer counts no more. KIP-890.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from kpy.api.broker import Broker
from kpy.coordinator import and_then
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.records.batch import HEADER_SIZE, MAGIC, MAGIC_POSITION, read_header
from kpy.storage.producer_state import ProducerState
from kpy.txn.transaction import TopicPartition
from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnResult
from kpy.wire.produce import ProduceRequest

TRANSACTION_ABORTABLE_SINCE = 11
ADDS_PARTITIONS_SINCE = 12
TOPIC_IDS_SINCE = 13

ASK_AGAIN = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.NETWORK_EXCEPTION,
    }
)

ENDED = ApiError(ErrorCode.INVALID_TXN_STATE, "Record was not part of an ongoing transaction")

Refused = Mapping[TopicPartition, ApiError]
T = TypeVar("T")


def when_admitted(
    request: ProduceRequest, version: int, broker: Broker, then: Callable[[Refused], T]
) -> T | Pending[T]:
    """Calls `then` with the partitions that may not be written to; later, if the coordinator must be waited for.

    Raises ApiError INVALID_PRODUCER_ID_MAPPING for records of several producers.
    """
    adds = version >= ADDS_PARTITIONS_SINCE
    if not adds and not broker.config.transaction_partition_verification_enable:
        return then({})
    producers, unknown = _unknown_writes(request, version, broker)
    if len(producers) > 1:
        message = "Transactional records contained more than one producer ID"
        raise ApiError(ErrorCode.INVALID_PRODUCER_ID_MAPPING, message)
    if not producers:
        return then({})
    ((producer_id, producer_epoch),) = producers
    transactional_id = request.transactional_id or ""
    result = broker.transactions.admit(transactional_id, producer_id, producer_epoch, unknown, adds=adds)
    if not isinstance(result, Pending):
        return then(_refused(result, version))
    _keep_records(request)
    watches = [(partition, state, state.watch(producer_id)) for partition, state in unknown.items()]

    def answered(result: AddPartitionsToTxnResult) -> T | Pending[T]:
        ended = {partition: ENDED for partition, state, watch in watches if not state.unwatch(watch)}
        return then({**ended, **_refused(result, version)})

    return and_then(result, answered)


def _unknown_writes(
    request: ProduceRequest, version: int, broker: Broker
) -> tuple[set[tuple[int, int]], dict[TopicPartition, ProducerState]]:
    """Producers, and the partitions that know of no open transaction of theirs. What is malformed is refused later."""
    producers: set[tuple[int, int]] = set()
    partitions: dict[TopicPartition, ProducerState] = {}
    for topic in request.topic_data:
        name = topic.name
        if version >= TOPIC_IDS_SINCE:
            name = broker.cluster.image.topic_names.get(topic.topic_id, "")
        for data in topic.partition_data:
            records = data.records
            if records is None or len(records) < HEADER_SIZE or records[MAGIC_POSITION] != MAGIC:
                continue
            header = read_header(records)
            if not header.is_transactional or header.producer_id < 0:
                continue
            try:
                state = broker.replicas.partition(name, data.index).log.producer_state
            except ApiError:
                continue
            if not state.is_in_transaction(header.producer_id, header.producer_epoch):
                producers.add((header.producer_id, header.producer_epoch))
                partitions[name, data.index] = state
    return producers, partitions


def _keep_records(request: ProduceRequest) -> None:
    """They lie in a buffer that all connections share, which is not this request's when it goes on."""
    for topic in request.topic_data:
        for data in topic.partition_data:
            if data.records is not None:
                data.records = memoryview(bytes(data.records))


def _refused(result: AddPartitionsToTxnResult, version: int) -> Refused:
    return {partition: _as_produce_error(error, version) for partition, error in errors_of(result).items()}


def _as_produce_error(error: ErrorCode, version: int) -> ApiError:
    """Producers know other errors of Produce than of AddPartitionsToTxn. NOT_ENOUGH_REPLICAS has them try again."""
    if error is ErrorCode.PRODUCER_FENCED:
        return ApiError(ErrorCode.INVALID_PRODUCER_EPOCH)
    if error is ErrorCode.TRANSACTION_ABORTABLE and version < TRANSACTION_ABORTABLE_SINCE:
        return ApiError(ErrorCode.INVALID_TXN_STATE, "Partition was not added to the transaction")
    is_busy = error is ErrorCode.CONCURRENT_TRANSACTIONS and version < ADDS_PARTITIONS_SINCE
    if is_busy or error in ASK_AGAIN:
        return ApiError(
            ErrorCode.NOT_ENOUGH_REPLICAS,
            f"Unable to verify the partition has been added to the transaction. Underlying error: {error.name}",
        )
    return ApiError(error)


def errors_of(result: AddPartitionsToTxnResult) -> dict[TopicPartition, ErrorCode]:
    """The partitions that were refused, and why."""
    return {
        (topic.name, each.partition_index): ErrorCode(each.partition_error_code)
        for topic in result.topic_results
        for each in topic.results_by_partition
        if each.partition_error_code
    }
