"""WriteTxnMarkers (27), versions 0-2.

Ends transactions in partitions that this broker leads: sent by transaction coordinators to other brokers, and by
kafka-transactions to abort one that its coordinator knows nothing of any more. Each marker is written on its own and
has its own errors. A marker in __consumer_offsets decides about the offsets of the transaction. KIP-98, KIP-1228.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.transaction_coordinator import Appended
from kpy.wire.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)


def write_txn_markers(
    request: WriteTxnMarkersRequest, client: Client, broker: Broker
) -> WriteTxnMarkersResponse | Pending[WriteTxnMarkersResponse]:
    appended: list[Appended] = []
    response = WriteTxnMarkersResponse(markers=[_write(marker, broker, appended) for marker in request.markers])
    pending: Pending[WriteTxnMarkersResponse] = Pending()
    broker.transactions.when_committed(appended, lambda: pending.complete(response))
    return response if pending.done else pending


def _write(marker: WritableTxnMarker, broker: Broker, appended: list[Appended]) -> WritableTxnMarkerResult:
    topics: list[WritableTxnMarkerTopicResult] = []
    for topic in marker.topics:
        results: list[WritableTxnMarkerPartitionResult] = []
        for index in topic.partition_indexes:
            error = ErrorCode.NONE
            try:
                appended.append(
                    broker.transactions.write_marker(
                        topic.name,
                        index,
                        marker.producer_id,
                        marker.producer_epoch,
                        commits=marker.transaction_result,
                        coordinator_epoch=marker.coordinator_epoch,
                    )
                )
            except ApiError as refused:
                error = refused.code
            results.append(WritableTxnMarkerPartitionResult(index, error))
        topics.append(WritableTxnMarkerTopicResult(topic.name, results))
    return WritableTxnMarkerResult(marker.producer_id, topics)
