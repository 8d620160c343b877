"""AddPartitionsToTxn (24), versions 0-5.

Up to version 3 from a producer, for its one transaction: partitions must be in it before they are written to. If one of
them does not exist none is added, and the others are told OPERATION_NOT_ATTEMPTED. Version 2 knows PRODUCER_FENCED.
From version 4 on from other brokers, for many transactions at once: they ask whether partitions that are about to be
written to are in a transaction (`verify_only`), or add them for producers of transaction version 2. KIP-98, KIP-890.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.txn.answers import partition_results
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTransaction,
)

BATCH_SINCE = 4


def add_partitions_to_txn(
    request: AddPartitionsToTxnRequest, client: Client, broker: Broker
) -> AddPartitionsToTxnResponse | Pending[AddPartitionsToTxnResponse]:
    if client.version >= BATCH_SINCE:
        answers = [_add(transaction, client, broker) for transaction in request.transactions]
        return when_all(answers, lambda results: AddPartitionsToTxnResponse(results_by_transaction=results))
    transaction = AddPartitionsToTxnTransaction(
        request.v3_and_below_transactional_id,
        request.v3_and_below_producer_id,
        request.v3_and_below_producer_epoch,
        False,
        request.v3_and_below_topics,
    )
    return when_all(
        [_add(transaction, client, broker)],
        lambda results: AddPartitionsToTxnResponse(results_by_topic_v3_and_below=results[0].topic_results),
    )


def _add(
    transaction: AddPartitionsToTxnTransaction, client: Client, broker: Broker
) -> AddPartitionsToTxnResult | Pending[AddPartitionsToTxnResult]:
    topics = broker.cluster.image.topics
    errors: dict[tuple[str, int], ErrorCode] = {}
    is_whole = True
    for each in transaction.topics:
        topic = topics.get(each.name)
        for index in each.partitions:
            exists = topic is not None and 0 <= index < len(topic.partitions)
            is_whole = is_whole and exists
            attempt = ErrorCode.OPERATION_NOT_ATTEMPTED if exists else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            errors[each.name, index] = attempt
    if not is_whole:
        return partition_results(transaction, errors)
    return broker.transactions.tell(transaction.transactional_id, transaction, client)
