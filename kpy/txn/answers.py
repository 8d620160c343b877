"""Answers of the transaction APIs, with the errors each version knows.

Older clients have never heard of PRODUCER_FENCED: they are told INVALID_PRODUCER_EPOCH, after which they do the same. A
request that never reaches a transactional id, because its coordinator is elsewhere, still loading, or could not write,
is answered by `refusal`.
"""

from collections.abc import Callable
from typing import Any

from kpy.errors import ErrorCode
from kpy.machine import NO_PRODUCER_EPOCH, NO_PRODUCER_ID
from kpy.txn.transaction import TopicPartition
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.describe_transactions import (
    DescribeTransactionsRequest,
    DescribeTransactionsResponse,
    TransactionState,
)
from kpy.wire.end_txn import EndTxnRequest, EndTxnResponse
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

FENCED_SINCE: dict[type, int] = {InitProducerIdRequest: 4, AddPartitionsToTxnTransaction: 2, EndTxnRequest: 2}
"""The version of each API from which on it may answer PRODUCER_FENCED."""


def for_version(message: object, version: int, error: ErrorCode) -> ErrorCode:
    if error is ErrorCode.PRODUCER_FENCED and version < FENCED_SINCE.get(type(message), 0):
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error


def init_producer_id_error(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH)


def partition_results(message: AddPartitionsToTxnTransaction, errors: int | dict[TopicPartition, ErrorCode]) -> Any:
    """The same error for each partition, or each its own."""
    return AddPartitionsToTxnResult(
        transactional_id=message.transactional_id,
        topic_results=[
            AddPartitionsToTxnTopicResult(
                name=topic.name,
                results_by_partition=[
                    AddPartitionsToTxnPartitionResult(
                        partition_index=index,
                        partition_error_code=errors[topic.name, index] if isinstance(errors, dict) else errors,
                    )
                    for index in topic.partitions
                ],
            )
            for topic in message.topics
        ],
    )


def describe_error(message: DescribeTransactionsRequest, error: ErrorCode) -> DescribeTransactionsResponse:
    return DescribeTransactionsResponse(
        transaction_states=[
            TransactionState(error_code=error, transactional_id=each) for each in message.transactional_ids
        ]
    )


REFUSALS: dict[type, Callable[[Any, ErrorCode], Any]] = {
    InitProducerIdRequest: lambda message, error: init_producer_id_error(error),
    AddPartitionsToTxnTransaction: partition_results,
    EndTxnRequest: lambda message, error: EndTxnResponse(error_code=error),
    DescribeTransactionsRequest: describe_error,
}


def refusal(message: Any, version: int, error: ErrorCode) -> Any:
    """The answer to a request that fails as a whole, in the place where it carries errors."""
    return REFUSALS[type(message)](message, for_version(message, version, error))


APPEND_ERRORS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}
"""What a producer is told when the log did not take its transaction's record: to come again, or to look elsewhere."""


def append_refusal(message: Any, version: int, error: ErrorCode) -> Any:
    return refusal(message, version, APPEND_ERRORS.get(error, error))
