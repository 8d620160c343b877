"""Fetch (1), versions 0-18.

Reads whole record batches from each wanted partition, in the order asked, until `max_bytes`; the first partition with
data yields a batch even if that is larger (since version 3). With less than `min_bytes` and no error the request
waits, `max_wait_ms` at most; but not with records of an older segment, which will not become more. Records are answered
as regions of segment files and reach the socket by sendfile; those that are not in the page cache are read in by a
thread first, while others are served (storage/cold_read.py).

Version 4 adds isolation levels, 7 incremental sessions (KIP-227, api/fetch_sessions.py), 9 leader epochs (KIP-320),
12 the diverging epoch (KIP-595), 13 topic ids (KIP-516). Versions 0-3 get records in the older formats, converted.
Followers read up to the log end, and what they ask for tells the leader what they have (replica/leader.py). Consumers
read up to the high watermark; from a follower too, since version 11 (KIP-392): with RackAwareReplicaSelector as
replica.selector.class the leader sends a consumer to an in-sync replica in its rack. A read_committed consumer reads up
to the last stable offset and is told which transactions below it were aborted. While it waits, the end of a transaction
answers it, with what there is then. A follower outside the ISR may get no records for a while (KIP-73,
replica/throttles.py), and then what is appended does not end its wait.
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
from kpy.replica.selector import preferred_read_replica
from kpy.storage.cold_read import ColdRead, cold_read, cold_region
from kpy.storage.fs import FileRegion
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.wire.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)

FIRST_VERSION_WITH_FIRST_BATCH_WHOLE = 3
FIRST_VERSION_WITH_BATCH_V2 = 4
FIRST_VERSION_WITH_ZSTD = 10
FIRST_VERSION_WITH_FOLLOWER_READS = 11
FIRST_VERSION_WITH_CURRENT_LEADER = 12
FIRST_VERSION_WITH_TOPIC_IDS = 13
FIRST_VERSION_WITH_ENDPOINTS = 16
RACK_AWARE_SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
NO_REPLICA = -1
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
        wants_something = bool(wanted)
    else:
        wanted = []
        wants_something = bool(session.wanted)
    reader = _Read(request, client, broker, session, wanted, is_incremental=request.session_epoch > 0)
    missing_bytes = request.min_bytes - reader.read()
    if not reader.cold and (
        missing_bytes <= 0 or request.max_wait_ms <= 0 or not wants_something or reader.must_answer()
    ):
        return reader.response()
    pending: Pending[FetchResponse] = Pending()
    if reader.cold:
        _read_in_first(reader, request, broker, pending)
    else:
        _park(reader, request, missing_bytes, broker, pending)
    return pending


def _read_in_first(reader: "_Read", request: FetchRequest, broker: Broker, pending: Pending[FetchResponse]) -> None:
    """What comes from the disk: a thread reads it, then this one reads it again, from the page cache."""

    def read_again() -> None:
        if pending.done:
            return
        missing_bytes = request.min_bytes - reader.read()
        if reader.cold:
            _read_in_first(reader, request, broker, pending)
        elif missing_bytes <= 0 or request.max_wait_ms <= 0 or reader.must_answer():
            pending.complete(reader.response())
        else:
            _park(reader, request, missing_bytes, broker, pending)

    broker.replicas.cold_reads.read_in(reader.cold, read_again)


def _park(
    reader: "_Read", request: FetchRequest, missing_bytes: int, broker: Broker, pending: Pending[FetchResponse]
) -> None:
    purgatory = broker.replicas.purgatory
    session = reader.session

    def read_again_and_answer() -> None:
        if session is not None:
            session.parked = None
        reader.has_waited = True
        reader.read()
        # An offset that nobody has read at before is looked up, which may touch older pages than the newest.
        if reader.cold and not pending.done:
            _read_in_first(reader, request, broker, pending)
            return
        pending.complete(reader.response())

    parked = ParkedFetch(
        dict.fromkeys(reader.partitions) if reader.replica_id < 0 else reader.not_held_back(),
        missing_bytes,
        read_again_and_answer,
        committed_only=request.isolation_level == READ_COMMITTED and reader.replica_id < 0,
        of_follower=reader.replica_id >= 0,
    )
    if session is not None:
        session.parked = parked
    pending.on_abandon = lambda: purgatory.forget(parked)
    purgatory.park(parked, request.max_wait_ms)


class _Read:
    """One pass over the wanted partitions; a parked fetch makes a second one."""

    __slots__ = (
        "all_read",
        "answers",
        "broker",
        "cold",
        "cold_bytes",
        "has_waited",
        "is_first_read",
        "is_incremental",
        "listener",
        "moved",
        "must_answer_now",
        "partitions",
        "replica_id",
        "request",
        "session",
        "throttled_bytes",
        "version",
        "wanted",
        "was_read_in",
    )

    def __init__(
        self,
        request: FetchRequest,
        client: Client,
        broker: Broker,
        session: FetchSession | None,
        wanted: list[Wanted],
        *,
        is_incremental: bool,
    ) -> None:
        self.request = request
        self.version = client.version
        self.listener = client.listener
        self.broker = broker
        self.replica_id: int = request.replica_id if request.replica_state is None else request.replica_state.replica_id
        """A follower's broker id, or negative for a consumer."""
        self.is_first_read = True
        self.moved: set[int] = set()
        """The leaders that the answer sends the client to."""
        self.session = session
        if session is not None and self.replica_id >= 0:
            session.replica_id = self.replica_id
            session.fetched_at_ms = broker.replicas.clock_ms()
        self.wanted = wanted
        self.all_read: list[tuple[Wanted, Partition]] = []
        """Those of which the client has everything once it has this answer."""
        self.is_incremental = is_incremental
        self.answers: list[PartitionData] = []
        self.partitions: list[Partition] = []
        self.cold: list[ColdRead] = []
        self.was_read_in: set[Log] = set()
        self.cold_bytes = 0
        self.has_waited = False
        self.must_answer_now = False
        self.throttled_bytes = 0

    def read(self) -> int:
        """Fills `answers`, one for each wanted partition. Returns the size of all records in bytes.

        No disk is waited for: what must be read in first is in `cold` and not in the answers.
        """
        if self.session is not None:
            self.wanted = self.session.to_read()
        self.answers = []
        self.all_read = []
        self.partitions = []
        self.cold = []
        self.cold_bytes = 0
        self.throttled_bytes = 0
        budget = min(self.request.max_bytes, self.broker.config.fetch_max_bytes)
        total = 0
        whole_first_batch = self.version >= FIRST_VERSION_WITH_FIRST_BATCH_WHOLE
        for wanted in self.wanted:
            left = budget - total - self.cold_bytes
            answer = self._read_one(wanted, left, min_one_batch=whole_first_batch and total == 0)
            self.answers.append(answer)
            if answer.records is not None:
                total += len(answer.records)
        self.is_first_read = False
        return total

    def must_answer(self) -> bool:
        """Whether waiting is of no use: there is something else to tell than records, or these will not become more.

        A read ends with its segment. What is appended comes after a later one, so a consumer that has fallen behind
        would wait for nothing at the end of each segment (Kafka class DelayedFetch, case F).
        """
        if self.must_answer_now:
            return True
        for wanted, partition, answer in zip(self.wanted, self.partitions, self.answers, strict=True):
            log = partition.log
            if answer.records and log.ends_in_later_segment(wanted.position.fetch_offset, self._end(log)):
                return True
        return False

    def _end(self, log: Log) -> int:
        """Up to where this fetch may read."""
        if self.replica_id >= 0:
            return log.log_end_offset
        return log.last_stable_offset if self.request.isolation_level == READ_COMMITTED else log.high_watermark

    def _region(self, log: Log, offset: int, limit: int, end: int, min_one_batch: bool) -> FileRegion | None:
        if limit == 0 and not min_one_batch:
            end = offset  # Nothing fits: the offset is checked, and nothing is looked up.
        if log in self.was_read_in:
            return log.read(offset, limit, end, min_one_batch)
        cold = cold_read(log, offset, limit, end, was_just_appended=self.has_waited)
        if cold is None:
            region = log.read(offset, limit, end, min_one_batch)
            cold = cold_region(log, region) if region is not None and region.size > limit else None
            if cold is None:
                return region
        self.cold.append(cold)
        self.cold_bytes += cold.size_bytes
        self.was_read_in.add(log)
        return None

    def _read_one(self, wanted: Wanted, budget: int, *, min_one_batch: bool) -> PartitionData:
        position = wanted.position
        partition: Partition | None = None
        try:
            partition = self._find(wanted)
            self._check_may_read(partition, position)
            self.partitions.append(partition)
            log = partition.log
            # As of now: what this fetch moves is told by the next one.
            answer = PartitionData(
                position.partition,
                ErrorCode.NONE,
                log.high_watermark,
                log.last_stable_offset,
                log.log_start_offset,
                aborted_transactions=None,
                records=b"",
            )
            if self._is_sent_elsewhere(partition, position, answer):
                self.must_answer_now = True
                return answer
            is_follower = self.replica_id >= 0
            committed_only = self.request.isolation_level == READ_COMMITTED and not is_follower
            if is_follower:
                end = log.log_end_offset
            else:
                end = answer.last_stable_offset if committed_only else answer.high_watermark
            limit = min(position.partition_max_bytes, max(budget, 0))
            # Asked of the config first, since most topics throttle nobody.
            throttled = is_follower and log.config.leader_replication_throttled_replicas
            if throttled and self.broker.replicas.throttles.holds_back(partition, self.replica_id):
                limit, min_one_batch = 0, False
            region = self._region(log, position.fetch_offset, limit, end, min_one_batch)
            if is_follower and self.is_first_read:
                partition.follower_fetched(self.replica_id, position.fetch_offset, position.log_start_offset)
            if committed_only:
                aborted = [] if region is None else _aborted_transactions(partition, position.fetch_offset, end)
                answer.aborted_transactions = aborted
            if region is None:
                if self.session is not None and position.fetch_offset == end and self._may_rest(partition):
                    self.all_read.append((wanted, partition))
            else:
                answer.records = region
                if throttled and self.broker.replicas.throttles.counts_sent(partition):
                    self.throttled_bytes += region.size
                if self.version < FIRST_VERSION_WITH_ZSTD:
                    answer.records = self._for_old_client(region.read(), position.fetch_offset)
        except ApiError as error:
            return self._refused(wanted, partition, error.code)
        return answer

    def _refused(self, wanted: Wanted, partition: Partition | None, error: ErrorCode) -> PartitionData:
        self.must_answer_now = True
        return PartitionData(
            wanted.position.partition,
            error,
            -1,
            -1,
            -1,
            current_leader=self._current_leader(wanted, partition, error),
            aborted_transactions=None,
            records=b"",
        )

    def _may_rest(self, partition: Partition) -> bool:
        """Not while each fetch is a chance to join the ISR, or to be sent to another replica."""
        return partition.is_in_sync(self.replica_id) if self.replica_id >= 0 else not self.request.rack_id

    def not_held_back(self) -> dict[Partition, None]:
        """The partitions of which a follower would get what is appended next."""
        holds_back, replica = self.broker.replicas.throttles.holds_back, self.replica_id
        return {
            each: None
            for each in self.partitions
            if not (each.log.config.leader_replication_throttled_replicas and holds_back(each, replica))
        }

    def _check_may_read(self, partition: Partition, position: FetchPartition) -> None:
        """Raises ApiError for who may not read here, or not in this leader epoch."""
        if self.version < FIRST_VERSION_WITH_ZSTD:
            self._check_readable(partition.log.config)
        if position.current_leader_epoch > NO_EPOCH:
            partition.check_leader_epoch(position.current_leader_epoch)
        if self.replica_id >= 0:
            partition.led().follower(self.replica_id)
        elif not partition.is_leader and self.version < FIRST_VERSION_WITH_FOLLOWER_READS:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def _is_sent_elsewhere(self, partition: Partition, position: FetchPartition, answer: PartitionData) -> bool:
        """Whether the answer is another offset, where the histories part, or another replica, instead of records."""
        if position.last_fetched_epoch > NO_EPOCH:
            if position.fetch_offset < partition.log.log_start_offset:
                raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE)
            diverging = _diverging_epoch(partition, position.last_fetched_epoch, position.fetch_offset)
            if diverging is not None:
                answer.diverging_epoch = diverging
                return True
        if self.request.rack_id and self.replica_id < 0:
            answer.preferred_read_replica = self._preferred_replica(partition, position.fetch_offset)
        return answer.preferred_read_replica != NO_REPLICA

    def _find(self, wanted: Wanted) -> Partition:
        name = wanted.topic
        if self.version >= FIRST_VERSION_WITH_TOPIC_IDS:
            name = self.broker.cluster.image.topic_names.get(wanted.topic_id, "")
            if not name:
                raise ApiError(ErrorCode.UNKNOWN_TOPIC_ID)
        replicas = self.broker.replicas
        partition = replicas.replica(name, wanted.position.partition)
        if self.version >= FIRST_VERSION_WITH_TOPIC_IDS and partition.log.topic_id != wanted.topic_id:
            raise ApiError(ErrorCode.INCONSISTENT_TOPIC_ID)
        return partition

    def _preferred_replica(self, partition: Partition, fetch_offset: int) -> int:
        if partition.leadership is None or self.broker.config.get("replica.selector.class") != RACK_AWARE_SELECTOR:
            return NO_REPLICA
        brokers = self.broker.cluster.image.brokers
        racks = {broker_id: broker.rack for broker_id, broker in brokers.items() if self.listener in broker.endpoints}
        return preferred_read_replica(partition.leadership, racks, self.request.rack_id, fetch_offset)

    def _current_leader(self, wanted: Wanted, partition: Partition | None, error: ErrorCode) -> LeaderIdAndEpoch | None:
        """Where the client finds the partition now, as far as is known here (KIP-951)."""
        if self.version < FIRST_VERSION_WITH_CURRENT_LEADER or error not in (
            ErrorCode.NOT_LEADER_OR_FOLLOWER,
            ErrorCode.FENCED_LEADER_EPOCH,
        ):
            return None
        if partition is not None:
            known = partition.image
        else:
            image = self.broker.cluster.image
            topic = image.topics.get(image.topic_names.get(wanted.topic_id, wanted.topic))
            if topic is None or wanted.position.partition >= len(topic.partitions):
                return None
            known = topic.partitions[wanted.position.partition]
        self.moved.add(known.leader)
        return LeaderIdAndEpoch(known.leader, known.leader_epoch)

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
        if self.session is not None:
            for wanted, partition in self.all_read:
                # The pass itself may have moved the high watermark, and whoever has waited for that may have appended.
                log = partition.log
                if (self._end(log), log.high_watermark) == (wanted.position.fetch_offset, wanted.high_watermark):
                    self.session.rest(wanted, partition, of_follower=self.replica_id >= 0)
        if self.throttled_bytes:
            self.broker.replicas.throttles.sent(self.throttled_bytes)
        response = FetchResponse(session_id=self.session.session_id if self.session else 0, responses=topics)
        if self.moved and self.version >= FIRST_VERSION_WITH_ENDPOINTS:
            brokers = self.broker.cluster.image.brokers
            response.node_endpoints = [
                NodeEndpoint(leader, *brokers[leader].endpoints[self.listener], brokers[leader].rack)
                for leader in sorted(self.moved)
                if leader in brokers and self.listener in brokers[leader].endpoints
            ]
        return response


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
