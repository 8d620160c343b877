"""Following one leader: which Fetch to send next, and what a response means for the logs.

Source: AbstractFetcherThread, ReplicaFetcherThread and FetchSessionHandler of Apache Kafka.

Theory of operation. A follower keeps its log when it starts to follow and fetches at its log end, saying in which epoch
its last record was written. The leader answers with records, or with where the follower's history leaves its own: the
diverging epoch (KIP-595). The follower cuts its log there and asks again; each step goes back one epoch at least, so
they meet (KIP-101, KIP-279). A log without any epoch is cut to its high watermark instead. An offset that the leader
does not have is looked into with ListOffsets: a follower that is ahead is cut to the leader's end, one that is behind
the leader's start begins anew there.

The machine asks the logs where they end and says what to do to them, as a list of steps; the shell carries them out in
order, before it asks for the next request. A partition that met an error rests for replica.fetch.backoff.ms. One that
the leader has fenced in the epoch it was told last rests until the controller tells it a new one.

A partition that is throttled and has not all that is committed is left out while too much was taken (KIP-73,
throttles.py). When nothing else is left, the fetcher rests for as long as that lasts, but asks every
replica.fetch.backoff.ms whether somebody has set another rate.

A request names only what has changed since the last one (KIP-227): `_session` is what the leader remembers. An error of
the session, or a broken connection, begins a new one with everything. To find what has changed, it looks at those
partitions only that something was done to since, `_touched`, so that a request costs no more for a follower of a
thousand partitions than for one of the few in which something happens. What changes without its doing (retention moves
the log start) is found by looking at each partition once in LOOK_OVER_MS.

Pure: no clock, no sockets, no files.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from kpy.errors import ErrorCode
from kpy.replica.rotation import LOOK_OVER_MS, Rotation
from kpy.replication_quota import ReplicationQuota, ThrottledReplicas, is_throttled
from kpy.wire.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
    ReplicaState,
)

NO_SESSION = 0
FIRST_EPOCH = 0
MAX_EPOCH = 2**31 - 1
UNDEFINED = -1

Key = tuple[str, int]
"""Topic and partition."""
T = TypeVar("T")


class Epochs(Protocol):
    """The leader epochs of a log."""

    latest_epoch: int

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]: ...


class ReplicaConfig(Protocol):
    """The configs of a log that a follower goes by."""

    @property
    def follower_replication_throttled_replicas(self) -> ThrottledReplicas: ...


class ReplicaLog(Protocol):
    """What is asked of a follower's log."""

    @property
    def config(self) -> ReplicaConfig: ...
    @property
    def topic_id(self) -> bytes: ...
    @property
    def log_start_offset(self) -> int: ...
    @property
    def log_end_offset(self) -> int: ...
    @property
    def high_watermark(self) -> int: ...
    @property
    def leader_epochs(self) -> Epochs: ...


class Append(NamedTuple):
    """Append `records` if there are any, then follow the leader's high watermark and log start."""

    key: Key
    records: memoryview | None
    high_watermark: int
    log_start_offset: int


class Truncate(NamedTuple):
    """Cut the log to `offset`."""

    key: Key
    offset: int


class AskOffsets(NamedTuple):
    """Ask the leader with ListOffsets where its log begins and ends, then call `offsets`."""

    key: Key
    leader_epoch: int


class StartAnew(NamedTuple):
    """Drop the whole log and begin at `offset`."""

    key: Key
    offset: int


Step = Append | Truncate | AskOffsets | StartAnew


class Limits(NamedTuple):
    """The broker keys replica.fetch.*."""

    max_wait_ms: int = 500
    min_bytes: int = 1
    response_max_bytes: int = 10_485_760
    partition_max_bytes: int = 1_048_576
    backoff_ms: int = 1_000


class _Followed:
    """One partition."""

    __slots__ = ("committed_offset", "is_fenced", "leader_epoch", "log", "resting_until_ms")

    def __init__(self, log: ReplicaLog, leader_epoch: int) -> None:
        self.log = log
        self.leader_epoch = leader_epoch
        self.resting_until_ms = 0
        self.is_fenced = False
        self.committed_offset: int | None = None
        """The leader's high watermark, once it has told it."""

    @property
    def is_in_sync(self) -> bool:
        """Whether it has all that is committed, as far as the leader has told since this broker follows it."""
        return self.committed_offset is not None and self.log.log_end_offset >= self.committed_offset

    def known(self) -> "_Known":
        log = self.log
        return _Known(
            log.topic_id,
            self.leader_epoch,
            log.log_end_offset,
            log.leader_epochs.latest_epoch,
            log.log_start_offset,
        )


class _Known(NamedTuple):
    """What the leader's session remembers of one partition."""

    topic_id: bytes
    leader_epoch: int
    fetch_offset: int
    last_fetched_epoch: int
    log_start_offset: int


class Following:
    """All partitions that one fetcher follows at one leader."""

    def __init__(
        self, broker_id: int, broker_epoch: int, limits: Limits, quota: ReplicationQuota | None = None
    ) -> None:
        self.broker_id = broker_id
        self.broker_epoch = broker_epoch
        self._limits = limits
        self._quota = quota or ReplicationQuota()
        self._followed: dict[Key, _Followed] = {}
        self._by_id: dict[tuple[bytes, int], Key] = {}
        self._session_id = NO_SESSION
        self._session_epoch = FIRST_EPOCH
        self._session: dict[Key, _Known] = {}
        self._touched: dict[Key, None] = {}
        self._resting: dict[Key, None] = {}
        self._held_back: list[Key] = []
        self._rotation = Rotation(LOOK_OVER_MS)

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, key: Key) -> bool:
        return key in self._followed

    def follow(self, key: Key, log: ReplicaLog, leader_epoch: int) -> list[Step]:
        """Begins to follow, from where the log ends."""
        self._followed[key] = _Followed(log, leader_epoch)
        self._touched[key] = None
        if log.leader_epochs.latest_epoch == UNDEFINED and log.log_end_offset > log.high_watermark:
            # Records of before leader epochs: nothing tells where they leave the leader's but what is committed.
            return [Truncate(key, log.high_watermark)]
        return []

    def leave(self, key: Key) -> None:
        """Stops to follow; what is still in flight for it is passed over."""
        self._followed.pop(key, None)
        self._touched[key] = None

    def rest(self, key: Key, now_ms: int) -> None:
        """A step for the partition could not be carried out now; tries again later."""
        followed = self._followed.get(key)
        if followed is not None:
            followed.resting_until_ms = now_ms + self._limits.backoff_ms
            self._touched[key] = self._resting[key] = None

    def next_ready_ms(self, now_ms: int) -> int | None:
        """When there is something to fetch; None if nothing but a call of `follow` can change that."""
        exceeded_for_ms = self._quota.exceeded_for_ms(now_ms)
        throttled_until_ms = now_ms + min(exceeded_for_ms, self._limits.backoff_ms)
        times = [
            max(each.resting_until_ms, throttled_until_ms)
            if exceeded_for_ms and self._is_throttled(key, each)
            else each.resting_until_ms
            for key, each in self._followed.items()
            if not each.is_fenced
        ]
        return max(now_ms, min(times)) if times else None

    def _is_throttled(self, key: Key, followed: _Followed) -> bool:
        """Whether the partition waits while the quota is exceeded."""
        replicas = followed.log.config.follower_replication_throttled_replicas
        return is_throttled(replicas, key[1], self.broker_id) and not followed.is_in_sync

    # Requests.

    def next_request(self, now_ms: int) -> FetchRequest | None:
        """The next Fetch v17; None while no partition is ready."""
        opening = self._session_epoch == FIRST_EPOCH
        if opening:
            self._begin_anew()
        is_exceeded = self._quota.exceeded_for_ms(now_ms) > 0
        changed: dict[Key, _Known] = {}
        dropped: list[Key] = []
        held_back: list[Key] = []
        for key in self._to_look_at(now_ms, everything=opening or is_exceeded):
            followed = self._followed.get(key)
            before = self._session.get(key)
            is_ready = followed is not None and not followed.is_fenced and followed.resting_until_ms <= now_ms
            if is_exceeded and followed is not None and self._is_throttled(key, followed):
                held_back.append(key)
                is_ready = False
            if followed is not None and is_ready:
                known = followed.known()
                if known != before:
                    changed[key] = known
                    if before is not None and before.topic_id != known.topic_id:
                        dropped.append(key)
            elif before is not None:
                dropped.append(key)
        self._held_back = held_back
        if not changed and len(dropped) == len(self._session):
            return None
        self._touched.clear()
        forgotten = [(self._session[key].topic_id, key[1]) for key in dropped]
        for key, position in zip(dropped, forgotten, strict=True):
            del self._session[key]
            self._by_id.pop(position, None)
        self._session.update(changed)
        self._by_id.update(((known.topic_id, key[1]), key) for key, known in changed.items())
        limits = self._limits
        return FetchRequest(
            replica_state=ReplicaState(self.broker_id, self.broker_epoch),
            max_wait_ms=limits.max_wait_ms,
            min_bytes=limits.min_bytes,
            max_bytes=limits.response_max_bytes,
            session_id=self._session_id,
            session_epoch=self._session_epoch,
            topics=[FetchTopic("", topic_id, each) for topic_id, each in _by_topic(self._positions(changed)).items()],
            forgotten_topics_data=[
                ForgottenTopic("", topic_id, each) for topic_id, each in _by_topic(forgotten).items()
            ],
        )

    def _to_look_at(self, now_ms: int, *, everything: bool) -> list[Key]:
        """In which something may have changed since the last request; that a rest is over is such a change."""
        for key in list(self._resting):
            followed = self._followed.get(key)
            if followed is None or followed.resting_until_ms <= now_ms:
                del self._resting[key]
                self._touched[key] = None
        looked_over = self._rotation.next(self._followed, now_ms)
        all_or_some = self._followed if everything else (*self._held_back, *looked_over)
        return list(dict.fromkeys((*self._touched, *all_or_some)))

    def _positions(self, changed: dict[Key, _Known]) -> Iterator[tuple[bytes, FetchPartition]]:
        for (_, index), known in changed.items():
            yield (
                known.topic_id,
                FetchPartition(
                    partition=index,
                    current_leader_epoch=known.leader_epoch,
                    fetch_offset=known.fetch_offset,
                    last_fetched_epoch=known.last_fetched_epoch,
                    log_start_offset=known.log_start_offset,
                    partition_max_bytes=self._limits.partition_max_bytes,
                ),
            )

    # Responses.

    def disconnected(self, now_ms: int) -> None:
        """The request was not answered: every partition rests, and the session begins anew, closing the old one."""
        self._begin_anew()
        for key in self._followed:
            self.rest(key, now_ms)

    def answered(self, response: FetchResponse, now_ms: int) -> list[Step]:
        """The steps that the response to the last request asks for, in order."""
        if response.error_code != ErrorCode.NONE:
            if response.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND:
                self._session_id = NO_SESSION
            self._begin_anew()
            return []
        if self._session_epoch == FIRST_EPOCH:
            self._session_id = response.session_id
            self._session_epoch = FIRST_EPOCH if response.session_id == NO_SESSION else 1
        else:
            self._session_epoch = 1 if self._session_epoch == MAX_EPOCH else self._session_epoch + 1
        steps: list[Step] = []
        answered: set[Key] = set()
        for topic in response.responses:
            for data in topic.partitions:
                key = self._by_id.get((topic.topic_id, data.partition_index))
                followed = self._followed.get(key) if key is not None else None
                if key is None or followed is None or key in answered:
                    continue  # It is not followed any more.
                self._touched[key] = None
                if not self._is_asked(key, followed):
                    continue  # Or not from there.
                answered.add(key)
                steps += self._partition_answered(key, followed, data, now_ms)
        return steps

    def _begin_anew(self) -> None:
        self._session_epoch = FIRST_EPOCH
        self._session = {}
        self._by_id = {}

    def _is_asked(self, key: Key, followed: _Followed) -> bool:
        """Whether the last request, or one before it that still holds, asks for what comes next in the log."""
        known = self._session.get(key)
        return known is not None and known == followed.known()._replace(log_start_offset=known.log_start_offset)

    def _partition_answered(self, key: Key, followed: _Followed, data: PartitionData, now_ms: int) -> list[Step]:
        error = data.error_code
        if error == ErrorCode.NONE:
            diverging = data.diverging_epoch
            if diverging is not None and diverging.epoch >= 0:
                return [Truncate(key, truncation_offset(followed.log, diverging.epoch, diverging.end_offset))]
            followed.committed_offset = data.high_watermark
            return [Append(key, data.records or None, data.high_watermark, data.log_start_offset)]
        if error == ErrorCode.OFFSET_OUT_OF_RANGE:
            return [AskOffsets(key, followed.leader_epoch)]
        if error == ErrorCode.FENCED_LEADER_EPOCH and self._is_current(key, followed):
            followed.is_fenced = True
            return []
        self.rest(key, now_ms)
        return []

    def _is_current(self, key: Key, followed: _Followed) -> bool:
        """Whether the leader has judged the epoch that the partition is followed in by now."""
        known = self._session.get(key)
        return known is None or known.leader_epoch == followed.leader_epoch

    def offsets(self, key: Key, leader_epoch: int, start_offset: int, end_offset: int) -> list[Step]:
        """The leader's log begins and ends there, in that epoch: what to do about being out of its range."""
        followed = self._followed.get(key)
        if followed is None or followed.leader_epoch != leader_epoch:
            return []
        log = followed.log
        if end_offset < log.log_end_offset:
            return [Truncate(key, end_offset)]
        if start_offset > log.log_end_offset:
            return [StartAnew(key, start_offset)]
        return []

    def offsets_refused(self, key: Key, error: ErrorCode, now_ms: int) -> None:
        """The leader did not say where its log begins and ends."""
        followed = self._followed.get(key)
        if followed is not None and error == ErrorCode.FENCED_LEADER_EPOCH and self._is_current(key, followed):
            followed.is_fenced = True
        else:
            self.rest(key, now_ms)


def truncation_offset(log: ReplicaLog, epoch: int, end_offset: int) -> int:
    """Where to cut, given the leader's largest epoch that is not above ours, and where it ends there (KIP-279).

    If we do not know that epoch either, we cut where our next lower one ends and let the leader speak again.
    """
    log_end_offset = log.log_end_offset
    own_epoch, own_end_offset = log.leader_epochs.end_offset_for(epoch, log_end_offset)
    if own_epoch == UNDEFINED:
        return min(end_offset, log_end_offset)
    if own_epoch != epoch:
        return min(own_end_offset, log_end_offset)
    return min(own_end_offset, end_offset, log_end_offset)


def _by_topic(rows: Iterable[tuple[bytes, T]]) -> dict[bytes, list[T]]:
    grouped: dict[bytes, list[T]] = {}
    for topic_id, row in rows:
        grouped.setdefault(topic_id, []).append(row)
    return grouped
