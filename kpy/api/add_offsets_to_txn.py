"""AddOffsetsToTxn (25), versions 0-4.

A producer is about to commit offsets of a consumer group in its transaction: the partition of __consumer_offsets that
the group lives in joins the transaction, as any other does by AddPartitionsToTxn. Version 2 knows PRODUCER_FENCED. The
errors of the offsets themselves are those of TxnOffsetCommit. KIP-98.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.coordinator import Asking, when_all
from kpy.pending import Pending
from kpy.wire.add_offsets_to_txn import AddOffsetsToTxnRequest, AddOffsetsToTxnResponse
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)

CLIENTS_ADD_PARTITIONS_UP_TO = 3
"""AddPartitionsToTxn of later versions is a broker's."""


def add_offsets_to_txn(
    request: AddOffsetsToTxnRequest, client: Client, broker: Broker
) -> AddOffsetsToTxnResponse | Pending[AddOffsetsToTxnResponse]:
    partition = broker.groups.partition_for(request.group_id)
    transaction = AddPartitionsToTxnTransaction(
        request.transactional_id,
        request.producer_id,
        request.producer_epoch,
        False,
        [AddPartitionsToTxnTopic(CONSUMER_OFFSETS, [partition])],
    )
    asker = Asking(client.client_id, client.host, min(client.version, CLIENTS_ADD_PARTITIONS_UP_TO))
    answer = broker.transactions.tell(request.transactional_id, transaction, asker)

    def respond(results: list[AddPartitionsToTxnResult]) -> AddOffsetsToTxnResponse:
        (topic,) = results[0].topic_results
        return AddOffsetsToTxnResponse(error_code=topic.results_by_partition[0].partition_error_code)

    return when_all([answer], respond)
