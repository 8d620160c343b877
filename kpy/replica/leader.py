"""What the leader of a partition knows of its followers, and what follows from it.

Source: Partition and Replica of Apache Kafka.

Theory of operation. A follower that fetches at offset X has everything below X. From these offsets comes the high
watermark: the lowest log end among the leader and the *maximal* ISR, which counts a follower that is being added to the
ISR already and one that is being removed still, since nobody knows yet which of the two the controller has written. So
a record below the high watermark is on every replica that can be elected, whatever becomes of the request. A follower
outside the ISR that keeps up holds the high watermark too, so that it can join. While fewer than min.insync.replicas
are in the ISR the high watermark stands still, and it never goes back.

A change of the ISR is proposed to the controller and is pending until its answer; there is one at a time. `expand` and
`shrink` propose, `settle` takes what the controller has written, `refused` its errors. A new leader epoch begins with
what the controller says and forgets what was pending.

Pure: times are milliseconds of any clock that does not go back, and who is alive is asked from outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage

UNKNOWN_OFFSET = -1
NEVER_MS = -(1 << 62)

IsAlive = Callable[[int], bool]

REVERTED_BY = frozenset({ErrorCode.OPERATION_NOT_ATTEMPTED, ErrorCode.INELIGIBLE_REPLICA})
"""The controller says that it knows the partition's state as we do and has not changed it."""

SETTLED_BY_NEWS = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.INVALID_UPDATE_VERSION,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.NEW_LEADER_ELECTED,
    }
)
"""The controller knows more than we do, and whether it has written the change is unknown until it tells."""


@lru_cache(maxsize=1024)
def _set_of(isr: tuple[int, ...]) -> frozenset[int]:
    """One set for all partitions that have the same ISR, as thousands do."""
    return frozenset(isr)


@dataclass(slots=True)
class Follower:
    """One follower as its last fetch has shown it."""

    log_end_offset: int = UNKNOWN_OFFSET
    log_start_offset: int = UNKNOWN_OFFSET
    last_caught_up_ms: int = NEVER_MS
    last_fetch_ms: int = NEVER_MS
    leader_end_at_last_fetch: int = UNKNOWN_OFFSET

    def fetched(self, offset: int, log_start_offset: int, leader_end_offset: int, now_ms: int) -> None:
        """It is caught up as of now if it has all there is, and as of its last fetch if it has all there was then."""
        if offset >= leader_end_offset:
            self.last_caught_up_ms = max(self.last_caught_up_ms, now_ms)
        elif offset >= self.leader_end_at_last_fetch:
            self.last_caught_up_ms = max(self.last_caught_up_ms, self.last_fetch_ms)
        self.log_end_offset = offset
        self.log_start_offset = log_start_offset
        self.leader_end_at_last_fetch = max(leader_end_offset, self.leader_end_at_last_fetch)
        self.last_fetch_ms = now_ms

    def had_all_until(self, time_ms: int) -> None:
        """It has fetched until then, and nothing has been appended since it had all there is."""
        self.last_caught_up_ms = max(self.last_caught_up_ms, time_ms)
        self.last_fetch_ms = max(self.last_fetch_ms, time_ms)

    def is_caught_up(self, leader_end_offset: int, now_ms: int, lag_time_max_ms: int) -> bool:
        return leader_end_offset == self.log_end_offset or now_ms - self.last_caught_up_ms <= lag_time_max_ms


@dataclass(frozen=True, slots=True, eq=False)
class IsrChange:
    """A proposal to the controller, valid in this leader epoch and on top of this partition epoch."""

    isr: tuple[int, ...]
    leader_epoch: int
    partition_epoch: int
    maximal_isr: frozenset[int]


class Leadership:
    """One broker's lead of one partition. `isr` is what the controller has written last, as far as is known here."""

    __slots__ = (
        "broker_id",
        "epoch_start_offset",
        "followers",
        "isr",
        "lag_time_max_ms",
        "leader_epoch",
        "maximal_isr",
        "partition_epoch",
        "pending",
        "replicas",
    )

    def __init__(
        self,
        image: PartitionImage,
        broker_id: int,
        *,
        log_end_offset: int,
        now_ms: int,
        lag_time_max_ms: int,
        before: "Leadership | None" = None,
    ) -> None:
        """`before` is the same broker's lead in the epoch just before, if it led: it knows the followers' offsets."""
        self.broker_id = broker_id
        self.lag_time_max_ms = lag_time_max_ms
        self.leader_epoch = image.leader_epoch
        self.partition_epoch = image.partition_epoch
        self.replicas = image.replicas
        self.epoch_start_offset = log_end_offset
        self.followers: dict[int, Follower] = {}
        for replica in image.replicas:
            if replica == broker_id:
                continue
            follower = before.followers.get(replica) if before is not None else None
            in_sync = replica in image.isr
            if follower is None:
                follower = Follower()
            else:
                follower.leader_end_at_last_fetch = log_end_offset
                follower.last_fetch_ms = now_ms if in_sync else NEVER_MS
            follower.last_caught_up_ms = now_ms if in_sync else NEVER_MS
            self.followers[replica] = follower
        self._commit(image.isr)

    def _commit(self, isr: Sequence[int]) -> None:
        self.isr = tuple(isr)
        self.maximal_isr = _set_of(self.isr)
        self.pending: IsrChange | None = None

    # What followers fetch.

    def fetched(
        self, replica: int, offset: int, log_start_offset: int, leader_end_offset: int, now_ms: int
    ) -> Follower:
        """Takes note of a follower's fetch. Raises ApiError UNKNOWN_LEADER_EPOCH for a broker that has no replica."""
        follower = self.follower(replica)
        follower.fetched(offset, log_start_offset, leader_end_offset, now_ms)
        return follower

    def follower(self, replica: int) -> Follower:
        """Raises ApiError UNKNOWN_LEADER_EPOCH: the controller may have assigned it in an epoch not yet heard of."""
        follower = self.followers.get(replica)
        if follower is None:
            raise ApiError(ErrorCode.UNKNOWN_LEADER_EPOCH, f"Broker {replica} is not among the replicas")
        return follower

    def high_watermark(self, current: int, log_end_offset: int, min_isr: int, now_ms: int, is_alive: IsAlive) -> int:
        """Where the high watermark may be by now, `current` if it may not rise."""
        if len(self.isr) < min_isr:
            return current
        lowest = log_end_offset
        for replica, follower in self.followers.items():
            if follower.log_end_offset < lowest and (
                replica in self.maximal_isr
                or (follower.is_caught_up(log_end_offset, now_ms, self.lag_time_max_ms) and is_alive(replica))
            ):
                lowest = follower.log_end_offset
        return max(current, lowest)

    def refusal(self, min_isr: int) -> ErrorCode:
        """Whether acks=all is refused before anything is appended."""
        return ErrorCode.NOT_ENOUGH_REPLICAS if len(self.isr) < min_isr else ErrorCode.NONE

    def verdict(self, min_isr: int) -> ErrorCode:
        """What acks=all answers for records below the high watermark: they are in the log, perhaps on too few."""
        return ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND if len(self.maximal_isr) < min_isr else ErrorCode.NONE

    # The ISR.

    def expand(self, replica: int, high_watermark: int, is_alive: IsAlive) -> IsrChange | None:
        """Proposes to add a follower that has all that is committed, of this epoch too, if it is not in the ISR."""
        follower = self.followers.get(replica)
        if (
            follower is None
            or self.pending is not None
            or replica in self.isr
            or follower.log_end_offset < high_watermark
            or follower.log_end_offset < self.epoch_start_offset
            or not is_alive(replica)
        ):
            return None
        return self._propose((*self.isr, replica))

    def shrink(self, log_end_offset: int, now_ms: int) -> IsrChange | None:
        """Proposes to remove the followers that have not been caught up for replica.lag.time.max.ms."""
        if self.pending is not None:
            return None
        kept = tuple(
            replica
            for replica in self.isr
            if replica == self.broker_id or self._keeps_up(replica, log_end_offset, now_ms)
        )
        return self._propose(kept) if len(kept) < len(self.isr) else None

    def _keeps_up(self, replica: int, log_end_offset: int, now_ms: int) -> bool:
        follower = self.followers.get(replica)
        return follower is not None and follower.is_caught_up(log_end_offset, now_ms, self.lag_time_max_ms)

    def _propose(self, isr: tuple[int, ...]) -> IsrChange:
        self.maximal_isr = frozenset(self.isr) | frozenset(isr)
        self.pending = IsrChange(isr, self.leader_epoch, self.partition_epoch, self.maximal_isr)
        return self.pending

    def settle(self, change: IsrChange, leader_epoch: int, isr: Sequence[int], partition_epoch: int) -> bool:
        """The controller's answer to `change`: whether it counts. An answer from the past is passed over."""
        if self.pending is not change or leader_epoch != self.leader_epoch or partition_epoch < self.partition_epoch:
            return False
        self.partition_epoch = partition_epoch
        self._commit(isr)
        return True

    def refused(self, change: IsrChange, error: ErrorCode) -> bool:
        """The controller's error: whether to send `change` again."""
        if self.pending is not change:
            return False
        if error in REVERTED_BY:
            self._commit(self.isr)
            return False
        return error not in SETTLED_BY_NEWS

    def low_watermark(self, log_start_offset: int, is_alive: IsAlive) -> int:
        """The highest log start of all live replicas: below it nobody has records any more (DeleteRecords)."""
        starts = (each.log_start_offset for replica, each in self.followers.items() if is_alive(replica))
        return min((log_start_offset, *starts))
