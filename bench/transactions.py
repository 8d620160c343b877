"""One producer's transactions: each adds its partitions, writes a record to each of them, and commits.

It speaks the protocol that both brokers serve (transaction version 0) over one connection, one request after the other.
What counts is the time until the answers, so that what the client itself takes, in Python, is in nobody's figure.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from bench.link import FIND_COORDINATOR_VERSION, Link
from bench.programs import WorkFailedError
from kpy.errors import ErrorCode
from kpy.records.batch import NewRecord, build_batch
from kpy.wire import add_partitions_to_txn, end_txn, find_coordinator, init_producer_id, produce

INIT_PRODUCER_ID_VERSION = 4
ADD_PARTITIONS_VERSION = 3
PRODUCE_VERSION = 9
END_TXN_VERSION = 3
TRANSACTION_TIMEOUT_MS = 60_000
TRANSACTION = 1
"""The kind of coordinator to be found."""
RETRY_S = 0.001
"""For a transaction that is still being ended; Java's producer would wait for 20 ms."""
PATIENCE_S = 60.0
ALL = -1
NOT_READY = (
    ErrorCode.CONCURRENT_TRANSACTIONS,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
)


class Rate(NamedTuple):
    """How many transactions were committed, and the seconds that the broker took for them."""

    transactions: int
    seconds: float


class TransactionalProducer:
    """A producer with a transactional id of its own."""

    def __init__(self, link: Link, transactional_id: str, topic: str, partitions: int) -> None:
        self._link = link
        self._id = transactional_id
        self._topic = topic
        self._partitions = list(range(partitions))
        self._sequence = 0
        self._waited_s = 0.0
        request = find_coordinator.FindCoordinatorRequest(transactional_id, TRANSACTION)
        _until_ready(lambda: link.call(find_coordinator, request, FIND_COORDINATOR_VERSION).error_code)
        self._producer = (-1, -1)
        _until_ready(self._begin)

    def _begin(self) -> int:
        request = init_producer_id.InitProducerIdRequest(self._id, TRANSACTION_TIMEOUT_MS, *self._producer)
        answer = self._link.call(init_producer_id, request, INIT_PRODUCER_ID_VERSION)
        self._producer = answer.producer_id, answer.producer_epoch
        return answer.error_code

    def run(self, seconds: float) -> Rate:
        """Commit one transaction after the other until the broker has taken so many seconds."""
        self._waited_s = 0.0
        transactions = 0
        while self._waited_s < seconds:
            records = self._records()
            started = time.monotonic()
            _until_ready(self._add, RETRY_S)
            answer = self._link.call(produce, records, PRODUCE_VERSION)
            _check(_first(each.error_code for each in answer.responses[0].partition_responses))
            request = end_txn.EndTxnRequest(self._id, *self._producer, True)
            _check(self._link.call(end_txn, request, END_TXN_VERSION).error_code)
            self._waited_s += time.monotonic() - started
            transactions += 1
        return Rate(transactions, self._waited_s)

    def _add(self) -> int:
        topics = [add_partitions_to_txn.AddPartitionsToTxnTopic(self._topic, self._partitions)]
        request = add_partitions_to_txn.AddPartitionsToTxnRequest([], self._id, *self._producer, topics)
        answer = self._link.call(add_partitions_to_txn, request, ADD_PARTITIONS_VERSION)
        (result,) = answer.results_by_topic_v3_and_below
        return _first(each.partition_error_code for each in result.results_by_partition)

    def _records(self) -> produce.ProduceRequest:
        producer_id, producer_epoch = self._producer
        batch = build_batch(
            [NewRecord(time.time_ns() // 1_000_000, None, bytes(100))],
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=self._sequence,
            transactional=True,
        )
        self._sequence += 1
        data = [produce.PartitionProduceData(index, batch) for index in self._partitions]
        return produce.ProduceRequest(
            self._id, ALL, 60_000, [produce.TopicProduceData(self._topic, partition_data=data)]
        )


def _until_ready(ask: Callable[[], int], pause_s: float = 0.05) -> None:
    """Ask until the answer is no more that somebody is busy or not there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while (error := ask()) in NOT_READY and time.monotonic() < deadline:
        time.sleep(pause_s)
    _check(error)


def _first(errors: Iterable[int]) -> int:
    return next(filter(None, errors), 0)


def _check(error: int) -> None:
    if error:
        raise WorkFailedError(f"a transaction is answered with error {error}")
