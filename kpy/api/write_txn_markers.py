"""WriteTxnMarkers (27), versions 0-2.

Ends transactions in partitions that this broker leads: sent by transaction coordinators to other brokers, and by
kafka-transactions to abort one that its coordinator knows nothing of any more. Each marker is written on its own and
has its own errors. A marker in __consumer_offsets decides about the offsets of the transaction. The answer waits until
the in-sync replicas have all markers, request.timeout.ms at most, and tells REQUEST_TIMED_OUT of those that are late.
KIP-98, KIP-1228.

Deviations: none.
"""

from functools import partial

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.replica.partition import Commit, Partition
from kpy.replica.purgatory import ParkedFetch
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
    answer = _Answer(broker)
    response = WriteTxnMarkersResponse(
        [
            WritableTxnMarkerResult(
                marker.producer_id,
                [
                    WritableTxnMarkerTopicResult(
                        topic.name, [answer.write(marker, topic.name, index) for index in topic.partition_indexes]
                    )
                    for topic in marker.topics
                ],
            )
            for marker in request.markers
        ]
    )
    return answer.when_committed(response)


class _Answer:
    """The results of one request, some of which are not known yet."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waits: list[tuple[Partition, Commit]] = []
        self._left = 0
        self._parked: ParkedFetch | None = None
        self._pending: Pending[WriteTxnMarkersResponse] = Pending(self._abandoned)
        self._response = WriteTxnMarkersResponse()

    def write(self, marker: WritableTxnMarker, topic: str, index: int) -> WritableTxnMarkerPartitionResult:
        result = WritableTxnMarkerPartitionResult(index, ErrorCode.REQUEST_TIMED_OUT)
        self._left += 1
        try:
            wait = self._broker.transactions.write_marker(
                topic,
                index,
                marker.producer_id,
                marker.producer_epoch,
                commits=marker.transaction_result,
                coordinator_epoch=marker.coordinator_epoch,
                told=partial(self._told, result),
            )
        except ApiError as error:
            self._told(result, error.code)
        else:
            if wait is not None:
                self._waits.append(wait)
        return result

    def when_committed(
        self, response: WriteTxnMarkersResponse
    ) -> WriteTxnMarkersResponse | Pending[WriteTxnMarkersResponse]:
        if not self._left:
            return response
        self._response = response
        self._parked = ParkedFetch((), 0, self._finish)
        self._broker.replicas.purgatory.park(self._parked, self._broker.config.request_timeout_ms)
        return self._pending

    def _told(self, result: WritableTxnMarkerPartitionResult, error: int) -> None:
        result.error_code = error
        self._left -= 1
        if not self._left and self._parked is not None:
            self._broker.replicas.purgatory.forget(self._parked)
            self._finish()

    def _finish(self) -> None:
        self._forget_waits()
        self._pending.complete(self._response)

    def _abandoned(self) -> None:
        if self._parked is not None:
            self._broker.replicas.purgatory.forget(self._parked)
        self._forget_waits()

    def _forget_waits(self) -> None:
        for partition, commit in self._waits:
            partition.forget(commit)
