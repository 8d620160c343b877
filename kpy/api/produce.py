"""Produce (0), versions 0-13.

Appends one batch a partition and answers when it is in the log: at once for acks=1, and for acks=all when it is
committed, which it is at once in a partition with a single replica. Otherwise the request waits for the in-sync
replicas of all its partitions, `timeout_ms` at most, and tells REQUEST_TIMED_OUT of those that are late. Where
flush.messages demands it, both wait until it is on disk (replica/group_commit.py); a disk that fails then is told as
KAFKA_STORAGE_ERROR. acks=0 gets no answer; an error then closes the connection, which is how its client learns of it.
Versions 0-2 carry message sets of the old formats, which are converted (records/validate.py). Version 13 names topics
by id.

The request's records lie in the connection's receive buffer: they are in the log when this returns, and nothing keeps
them. Records of a transaction may have to wait until its coordinator knows of their partitions
(api/transactional_writes.py): these are copied.

Deviations: records that are null are refused with INVALID_RECORD, where Apache Kafka never answers. A transaction's
records need acks=all, which every client sends; others are INVALID_REQUIRED_ACKS. KIP-98 (idempotence, transactions),
KIP-467 (record errors), KIP-516 (topic ids), KIP-890 (version 12 adds partitions to the transaction).
"""

from collections.abc import Callable
from functools import partial

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.transactional_writes import Refused, when_admitted
from kpy.controller.topics import INTERNAL_TOPICS
from kpy.errors import ApiError, ErrorCode, WireError
from kpy.pending import Pending
from kpy.records.validate import InvalidRecords, validate_produced
from kpy.replica.partition import ACKS_ALL, Commit, Partition
from kpy.replica.purgatory import ParkedFetch
from kpy.wire.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

FIRST_VERSION_WITH_TOPIC_IDS = 13
NOTHING_REFUSED: Refused = {}
TOOL_CLIENT_ID = "__admin_client"
"""The one client id that may write to internal topics, as in Apache Kafka."""


Answer = ProduceResponse | Pending[ProduceResponse] | None
Unsettled = list[tuple[Partition, int, PartitionProduceResponse]]
"""Partition, the offset that its high watermark must reach, or FLUSHED, and the answer that waits for it."""

FLUSHED = -1
WRITTEN_ALL_THE_SAME = (ErrorCode.NONE, ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND)


def produce(request: ProduceRequest, client: Client, broker: Broker) -> Answer | Pending[Answer]:
    acks = request.acks
    if request.transactional_id is None:
        return _produce(request, client, broker, None if acks in (-1, 0, 1) else ErrorCode.INVALID_REQUIRED_ACKS)
    if acks != ACKS_ALL:
        return _produce(request, client, broker, ErrorCode.INVALID_REQUIRED_ACKS)
    try:
        then: Callable[[Refused], Answer] = partial(_produce, request, client, broker, None)
        answer = when_admitted(request, client.version, broker, then)
    except ApiError as error:
        return _produce(request, client, broker, error.code)
    return answer


def _produce(
    request: ProduceRequest,
    client: Client,
    broker: Broker,
    refused: ErrorCode | None,
    refused_partitions: Refused = NOTHING_REFUSED,
) -> Answer:
    """The whole request is `refused`, or some of its partitions are, or none."""
    acks = request.acks
    in_transaction = request.transactional_id is not None
    unsettled: Unsettled = []
    now_ms = broker.now_ms()
    failed: ErrorCode | None = None
    answers: list[TopicProduceResponse] = []
    for topic in request.topic_data:
        name = topic.name
        error = refused
        if client.version >= FIRST_VERSION_WITH_TOPIC_IDS:
            name = broker.cluster.image.topic_names.get(topic.topic_id, "")
            error = error or (None if name else ErrorCode.UNKNOWN_TOPIC_ID)
        if name in INTERNAL_TOPICS and client.client_id != TOOL_CLIENT_ID:
            error = error or ErrorCode.INVALID_TOPIC_EXCEPTION
        partitions: list[PartitionProduceResponse] = []
        for data in topic.partition_data:
            if error is None and refused_partitions and (name, data.index) in refused_partitions:
                why = refused_partitions[name, data.index]
                answer = PartitionProduceResponse(data.index, why.code, -1, -1, -1, [], why.message)
            elif error is None:
                answer = _append(name, data, acks, client.version, broker, now_ms, unsettled, in_transaction)
            else:
                answer = PartitionProduceResponse(data.index, error, -1)
            if answer.error_code:
                failed = ErrorCode(answer.error_code)
            partitions.append(answer)
        answers.append(TopicProduceResponse(topic.name, topic.topic_id, partitions))
    if acks == 0:
        if failed is not None:
            raise WireError(f"produce with acks=0 of {client.client_id!r} failed: {failed.name}")
        return None
    response = ProduceResponse(answers)
    return _Settling(response, unsettled, request.timeout_ms, broker).pending if unsettled else response


class _Settling:
    """An answer that waits until every partition in `unsettled` is settled or has refused, or the time is over.

    It lets go of what it waits for when it is done, so that nothing of it is left to the garbage collector.
    """

    __slots__ = ("_left", "_parked", "_purgatory", "_response", "_waits", "pending")

    def __init__(self, response: ProduceResponse, unsettled: Unsettled, timeout_ms: int, broker: Broker) -> None:
        self._response = response
        self._left = len(unsettled)
        self._purgatory = broker.replicas.purgatory
        self._parked = ParkedFetch((), 0, self._give_up)
        self._waits: list[tuple[Partition, Commit]] = []
        # More of this connection may be appended meanwhile: the order of the log is the order of the requests already.
        self.pending: Pending[ProduceResponse] = Pending(self._abandoned, may_be_overtaken=True)
        for partition, end_offset, answer in unsettled:
            answer.error_code = ErrorCode.REQUEST_TIMED_OUT
            told = partial(self._told, answer)
            if end_offset == FLUSHED:
                partition.when_flushed(told)
            else:
                self._waits.append((partition, partition.when_committed(end_offset, told)))
        self._purgatory.park(self._parked, max(0, timeout_ms))

    def _told(self, answer: PartitionProduceResponse, error: ErrorCode) -> None:
        if self.pending.done:
            return  # It was flushed, or not, after the time was over.
        self._left -= 1
        answer.error_code = error
        if error not in WRITTEN_ALL_THE_SAME:
            answer.base_offset, answer.log_append_time_ms = -1, -1
        if self._left == 0:
            self._waits.clear()
            self._complete()

    def _complete(self) -> None:
        self._purgatory.forget(self._parked)
        self.pending.complete(self._response)

    def _give_up(self) -> None:
        self._forget_commits()
        self._complete()

    def _abandoned(self) -> None:
        self._purgatory.forget(self._parked)
        self._forget_commits()

    def _forget_commits(self) -> None:
        for partition, commit in self._waits:
            partition.forget(commit)
        self._waits.clear()


def _append(
    topic: str,
    data: PartitionProduceData,
    acks: int,
    version: int,
    broker: Broker,
    now_ms: int,
    unsettled: Unsettled,
    in_transaction: bool,
) -> PartitionProduceResponse:
    """Validates and appends one partition's records; its answer, which waits if it is added to `unsettled`.

    Errors found in the records name the real log start offset, others -1.
    """
    records = data.records
    log_start_offset = -1
    try:
        partition = broker.replicas.partition(topic, data.index)
        if records is None:
            raise ApiError(ErrorCode.INVALID_RECORD, "Records are null.")
        log_start_offset = partition.log.log_start_offset
        batch = validate_produced(records, partition.log.config.produce_rules, version, now_ms)
        if batch.header.is_transactional and not in_transaction:
            raise ApiError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        info = partition.append(batch, acks, now_ms)
    except ApiError as error:
        invalid = error.record_errors if isinstance(error, InvalidRecords) else []
        wrong = [BatchIndexAndErrorMessage(index, text) for index, text in invalid]
        return PartitionProduceResponse(data.index, error.code, -1, -1, log_start_offset, wrong, error.message)
    answer = PartitionProduceResponse(
        data.index, ErrorCode.NONE, info.base_offset, info.log_append_time_ms, info.log_start_offset
    )
    if acks == ACKS_ALL:
        if partition.high_watermark <= info.last_offset:
            unsettled.append((partition, info.last_offset + 1, answer))
    elif partition.unflushed:
        unsettled.append((partition, FLUSHED, answer))
    return answer
