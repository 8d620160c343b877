"""Fetch (1), versions 0-18.

Reads whole record batches from each wanted partition, in the order asked, until `max_bytes`; the first partition with
data yields a batch even if that is larger (since version 3). With less than `min_bytes` and no error the request
waits, `max_wait_ms` at most. Records are answered as regions of segment files and reach the socket by sendfile.

Version 4 adds isolation levels, 7 incremental sessions (KIP-227, api/fetch_sessions.py), 9 leader epochs (KIP-320),
12 the diverging epoch (KIP-595), 13 topic ids (KIP-516). Versions 0-3 get records in the older formats, converted.
Every consumer is served by the leader. A read_committed consumer reads up to the last stable offset and is told which
transactions below it were aborted. While it waits, the end of a transaction answers it, with what there is then.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch_sessions import FetchSession, Wanted
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.records.batch import iter_batches
from kpy.records.compression import Codec
from kpy.records.legacy import down_convert
from kpy.replica.partition import Partition
from kpy.replica.purgatory import ParkedFetch
from kpy.storage.log_config import LogConfig
from kpy.wire.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)

FIRST_VERSION_WITH_FIRST_BATCH_WHOLE = 3
FIRST_VERSION_WITH_BATCH_V2 = 4
FIRST_VERSION_WITH_ZSTD = 10
FIRST_VERSION_WITH_TOPIC_IDS = 13
READ_COMMITTED = 1
NO_EPOCH = -1


def fetch(request: FetchRequest, client: Client, broker: Broker) -> FetchResponse | Pending[FetchResponse]:
    by_id = client.version >= FIRST_VERSION_WITH_TOPIC_IDS
    session = broker.fetch_sessions.open(request, by_id, broker.now_ms())
    if isinstance(session, ErrorCode):
        return FetchResponse(error_code=session)
    if session is None:
        wanted = [
            Wanted(topic.topic, topic.topic_id, position) for topic in request.topics for position in topic.partitions
        ]
    else:
        wanted = list(session.wanted.values())
    reader = _Read(request, client.version, broker, session, wanted, is_incremental=request.session_epoch > 0)
    size_bytes = reader.read()
    if reader.must_answer_now or size_bytes >= request.min_bytes or request.max_wait_ms <= 0 or not wanted:
        return reader.response()
    return _park(reader, request, request.min_bytes - size_bytes, broker)


def _park(reader: "_Read", request: FetchRequest, missing_bytes: int, broker: Broker) -> Pending[FetchResponse]:
    purgatory = broker.replicas.purgatory
    pending: Pending[FetchResponse] = Pending(lambda: purgatory.forget(parked))

    def read_again_and_answer() -> None:
        reader.read()
        pending.complete(reader.response())

    parked = ParkedFetch(
        dict.fromkeys(reader.partitions),
        missing_bytes,
        read_again_and_answer,
        committed_only=request.isolation_level == READ_COMMITTED,
    )
    purgatory.park(parked, request.max_wait_ms)
    return pending


class _Read:
    """One pass over the wanted partitions; a parked fetch makes a second one."""

    __slots__ = (
        "answers",
        "broker",
        "is_incremental",
        "must_answer_now",
        "partitions",
        "request",
        "session",
        "version",
        "wanted",
    )

    def __init__(
        self,
        request: FetchRequest,
        version: int,
        broker: Broker,
        session: FetchSession | None,
        wanted: list[Wanted],
        *,
        is_incremental: bool,
    ) -> None:
        self.request = request
        self.version = version
        self.broker = broker
        self.session = session
        self.wanted = wanted
        self.is_incremental = is_incremental
        self.answers: list[PartitionData] = []
        self.partitions: list[Partition] = []
        self.must_answer_now = False

    def read(self) -> int:
        """Fills `answers`, one for each wanted partition. Returns the size of all records in bytes."""
        self.answers = []
        self.partitions = []
        budget = min(self.request.max_bytes, self.broker.config.fetch_max_bytes)
        total = 0
        whole_first_batch = self.version >= FIRST_VERSION_WITH_FIRST_BATCH_WHOLE
        for wanted in self.wanted:
            answer = self._read_one(wanted, budget - total, min_one_batch=whole_first_batch and total == 0)
            self.answers.append(answer)
            if answer.records is not None:
                total += len(answer.records)
        return total

    def _read_one(self, wanted: Wanted, budget: int, *, min_one_batch: bool) -> PartitionData:
        position = wanted.position
        try:
            partition = self._find(wanted)
            log = partition.log
            if self.version < FIRST_VERSION_WITH_ZSTD:
                self._check_readable(log.config)
            if position.current_leader_epoch > NO_EPOCH:
                partition.check_leader_epoch(position.current_leader_epoch)
            self.partitions.append(partition)
            high_watermark, last_stable_offset = log.high_watermark, log.last_stable_offset
            if position.last_fetched_epoch > NO_EPOCH:
                diverging = _diverging_epoch(partition, position.last_fetched_epoch, position.fetch_offset)
                if diverging is not None:
                    self.must_answer_now = True
                    return PartitionData(
                        position.partition,
                        ErrorCode.NONE,
                        high_watermark,
                        last_stable_offset,
                        log.log_start_offset,
                        diverging,
                        aborted_transactions=None,
                        records=b"",
                    )
            committed_only = self.request.isolation_level == READ_COMMITTED
            end = last_stable_offset if committed_only else high_watermark
            limit = min(position.partition_max_bytes, max(budget, 0))
            region = log.read(position.fetch_offset, limit, end, min_one_batch)
            aborted = None
            if committed_only:
                aborted = [] if region is None else _aborted_transactions(partition, position.fetch_offset, end)
            records = b"" if region is None else region
            if self.version < FIRST_VERSION_WITH_ZSTD and region is not None:
                records = self._for_old_client(region.read(), position.fetch_offset)
        except ApiError as error:
            self.must_answer_now = True
            return PartitionData(position.partition, error.code, -1, -1, -1, aborted_transactions=None, records=b"")
        return PartitionData(
            position.partition,
            ErrorCode.NONE,
            high_watermark,
            last_stable_offset,
            log.log_start_offset,
            aborted_transactions=aborted,
            records=records,
        )

    def _find(self, wanted: Wanted) -> Partition:
        name = wanted.topic
        if self.version >= FIRST_VERSION_WITH_TOPIC_IDS:
            name = self.broker.cluster.image.topic_names.get(wanted.topic_id, "")
            if not name:
                raise ApiError(ErrorCode.UNKNOWN_TOPIC_ID)
        return self.broker.replicas.partition(name, wanted.position.partition)

    def _check_readable(self, config: LogConfig) -> None:
        """Refuses an old client what the topic is configured to hold and it cannot read, even before there is any."""
        if config.compression_type == "zstd":
            raise ApiError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
        if self.version < FIRST_VERSION_WITH_BATCH_V2 and not config.message_downconversion_enable:
            raise ApiError(ErrorCode.UNSUPPORTED_VERSION)

    def _for_old_client(self, records: bytes, fetch_offset: int) -> bytes:
        """Versions 0-1 know message format 0, 2-3 format 1, and zstd came with version 10."""
        if self.version >= FIRST_VERSION_WITH_BATCH_V2:
            _refuse_zstd(records)
            return records
        return down_convert(records, 0 if self.version <= 1 else 1, fetch_offset)

    def response(self) -> FetchResponse:
        """The answer; an incremental one leaves out what the client knows."""
        topics: list[FetchableTopicResponse] = []
        last: Wanted | None = None
        for wanted, answer in zip(self.wanted, self.answers, strict=True):
            if self.session is not None:
                is_news = wanted.is_news(answer)
                if self.is_incremental and not is_news:
                    continue
                if answer.records:
                    self.session.move_to_end(wanted)
            if last is None or last.topic != wanted.topic or last.topic_id != wanted.topic_id:
                topics.append(FetchableTopicResponse(wanted.topic, wanted.topic_id))
            topics[-1].partitions.append(answer)
            last = wanted
        return FetchResponse(session_id=self.session.session_id if self.session else 0, responses=topics)


def _refuse_zstd(records: bytes) -> None:
    """Raises UNSUPPORTED_COMPRESSION_TYPE: a client that old would take a zstd batch for garbage (KIP-110)."""
    if any(header.codec == Codec.ZSTD for header, _ in iter_batches(records)):
        raise ApiError(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)


def _aborted_transactions(partition: Partition, start_offset: int, end_offset: int) -> list[AbortedTransaction]:
    return [
        AbortedTransaction(txn.producer_id, txn.first_offset)
        for txn in partition.log.aborted_transactions(start_offset, end_offset)
    ]


def _diverging_epoch(partition: Partition, last_fetched_epoch: int, fetch_offset: int) -> EpochEndOffset | None:
    """Where the log left the epoch that the reader last read in, if that is before the reader's position (KIP-595)."""
    log = partition.log
    epoch, end_offset = log.leader_epochs.end_offset_for(last_fetched_epoch, log.log_end_offset)
    if epoch == NO_EPOCH:
        raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE)
    if epoch < last_fetched_epoch or end_offset < fetch_offset:
        return EpochEndOffset(epoch, end_offset)
    return None
