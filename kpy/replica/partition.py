"""One partition on this broker: its role, its log, and who waits for it (Kafka class Partition).

As leader it knows its followers (leader.py) and moves the high watermark; a partition with one replica is committed as
it is appended. As follower it takes what its fetcher brings. Producers with acks=all wait in `commits` until the high
watermark has passed their records.

Where flush.messages demands that records are on disk before they are acknowledged (group_commit.py), they wait in
`unflushed` meanwhile, and whoever has to know is told by `when_flushed`: a producer with acks=1, or a fetcher, which
tells the leader only then that it has them. The high watermark does not pass them either.
"""

from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.records.batch import read_header
from kpy.records.validate import ValidBatch, checked_batches
from kpy.replica.group_commit import GroupCommit
from kpy.replica.leader import IsAlive, IsrChange, Leadership
from kpy.replica.purgatory import ParkedFetch, Purgatory
from kpy.storage.log import AppendInfo, Log

ACKS_ALL = -1
NO_EPOCH = -1
MAX_READ_BYTES = 2**31 - 1

Told = Callable[[ErrorCode], None]


class Reader(Protocol):
    """Who has read all there is, and is woken once when there may be more to tell."""

    def wake(self, partition: "Partition") -> None: ...


@dataclass(slots=True)
class Surroundings:
    """What all partitions of a broker share."""

    broker_id: int
    purgatory: Purgatory
    group_commit: GroupCommit
    clock_ms: Callable[[], int]
    """A clock that does not jump when somebody sets the wall clock."""
    lag_time_max_ms: Callable[[], int]
    is_alive: IsAlive
    propose: "Callable[[Partition, IsrChange], None]"
    """Asks the controller for another ISR."""
    committed: "Callable[[Partition], None]"
    """Told when the high watermark has moved later than with the append."""


@dataclass(slots=True, eq=False)
class Commit:
    """An append of acks=all: `told` once the high watermark is at `end_offset`, or that it never will be."""

    end_offset: int
    told: Told


@dataclass(slots=True, eq=False)
class Deletion:
    """Records below `offset` are deleted: `told` once no live replica has them, or that nobody here will know."""

    offset: int
    told: Told


class Unflushed:
    """One append that may not be acknowledged or read yet; `waiting` are told when it may, or why it never will."""

    __slots__ = ("end_offset", "start_offset", "waiting")

    def __init__(self, start_offset: int, end_offset: int) -> None:
        self.start_offset = start_offset
        self.end_offset = end_offset
        self.waiting: list[Told] = []


class Partition:
    """Appends go through here; reads take `log`, `high_watermark`, and where they wait."""

    __slots__ = (
        "_surroundings",
        "commits",
        "deletions",
        "image",
        "is_leader",
        "leader_epoch",
        "leadership",
        "log",
        "partition",
        "resting",
        "resting_followers",
        "topic",
        "unflushed",
        "waiting",
        "waiting_followers",
    )

    def __init__(self, topic: str, image: PartitionImage, log: Log, surroundings: Surroundings) -> None:
        self.topic = topic
        self.partition = image.partition
        self.log = log
        # No deques, each of which takes as much as all the rest of a partition where nobody waits.
        self.commits: list[Commit] = []
        self.unflushed: list[Unflushed] = []
        self.deletions: dict[Deletion, None] = {}
        self.waiting: dict[ParkedFetch, None] = {}
        """Consumers, who wait for committed records."""
        self.waiting_followers: dict[ParkedFetch, None] = {}
        self.resting: dict[Reader, None] | None = None
        self.resting_followers: dict[Reader, None] | None = None
        """Consumers and followers that have all, and of which none, or one that reads much else too, waits."""
        self.leadership: Leadership | None = None
        self._surroundings = surroundings
        self.lead_or_follow(image)

    @property
    def leader(self) -> int:
        return self.image.leader

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    @property
    def last_stable_offset(self) -> int:
        return self.log.last_stable_offset

    @property
    def min_isr(self) -> int:
        """A topic cannot demand more replicas than it has (Partition.effectiveMinIsr)."""
        return min(self.log.config.min_insync_replicas, len(self.image.replicas))

    def lead_or_follow(self, image: PartitionImage) -> None:
        """Takes the role that the metadata or the controller gives this broker. ApiError KAFKA_STORAGE_ERROR."""
        broker_id = self._surroundings.broker_id
        is_leader = image.leader == broker_id
        leadership = None
        if is_leader:
            self.log.start_leader_epoch(image.leader_epoch)
            leadership = Leadership(
                image,
                broker_id,
                log_end_offset=self.log.log_end_offset,
                now_ms=self._surroundings.clock_ms() if len(image.replicas) > 1 else 0,
                lag_time_max_ms=self._surroundings.lag_time_max_ms(),
                before=self.leadership,
            )
        self.image = image
        self.is_leader = is_leader
        self.leadership = leadership
        self.leader_epoch = image.leader_epoch
        if is_leader:
            self.advance_high_watermark()
        else:
            self._refuse_all(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._release_fetches()

    def resign(self) -> None:
        """This broker's replica is stopped: whoever waits for something here is sent away."""
        self.is_leader = False
        self.leadership = None
        self._refuse_all(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._release_fetches()

    def _refuse_all(self, error: ErrorCode) -> None:
        """Nothing that waits here will be committed or flushed by this broker, as far as it can tell."""
        told = [tell for append in self.unflushed for tell in append.waiting]
        told += [commit.told for commit in self.commits]
        told += [deletion.told for deletion in self.deletions]
        self.unflushed.clear()
        self.commits.clear()
        self.deletions.clear()
        for tell in told:
            tell(error)

    def _release_fetches(self) -> None:
        self._wake_consumers()
        self._wake_followers()
        for fetch in (*self.waiting, *self.waiting_followers):
            self._surroundings.purgatory.release(fetch)

    # Who reads here.

    def wake_later(self, reader: Reader, *, of_follower: bool) -> None:
        """Wakes `reader` once: a follower with the next append, both with the next commit or change of roles."""
        if of_follower:
            self.resting_followers = self.resting_followers or {}
            self.resting_followers[reader] = None
        else:
            self.resting = self.resting or {}
            self.resting[reader] = None

    def forget_reader(self, reader: Reader) -> None:
        """It need not be woken any more."""
        for readers in (self.resting, self.resting_followers):
            if readers is not None:
                readers.pop(reader, None)

    def _wake_consumers(self) -> None:
        readers, self.resting = self.resting, None
        for reader in readers or ():
            reader.wake(self)

    def _wake_followers(self) -> None:
        readers, self.resting_followers = self.resting_followers, None
        for reader in readers or ():
            reader.wake(self)

    def follower_had_all(self, replica: int, time_ms: int) -> None:
        """A follower that rested until now has fetched at `time_ms`: nothing was appended since it had all there is."""
        follower = self.leadership.followers.get(replica) if self.leadership is not None else None
        if follower is not None:
            follower.had_all_until(time_ms)

    # As leader.

    def led(self) -> Leadership:
        """Raises ApiError NOT_LEADER_OR_FOLLOWER."""
        if self.leadership is None:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return self.leadership

    def append(self, batch: ValidBatch, acks: int, now_ms: int) -> AppendInfo:
        """Appends one batch as leader. Raises ApiError; then nothing was appended.

        With acks=all it may be acknowledged once the high watermark is above its last offset: see `when_committed`;
        otherwise at once, or by `when_flushed` if something is `unflushed`.
        """
        log, leadership = self.log, self.led()
        if acks == ACKS_ALL and leadership.refusal(self.min_isr):
            raise ApiError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"The size of the current ISR {list(leadership.isr)} is insufficient to satisfy the min.isr requirement"
                f" of {self.min_isr} for partition {self.topic}-{self.partition}",
            )
        info = log.append_as_leader(batch, self.leader_epoch, now_ms)
        if not info.is_duplicate:
            if log.must_flush:
                self._flush(info.base_offset)
            elif not leadership.followers:
                log.high_watermark = log.log_end_offset
                if self.resting:
                    self._wake_consumers()
                if self.waiting:
                    self._surroundings.purgatory.appended(self, info.base_offset, len(batch.data))
                    if batch.header.is_control:
                        self._surroundings.purgatory.decided(self)
            else:
                self.advance_high_watermark()
            if self.resting_followers:
                self._wake_followers()
            if self.waiting_followers:
                self._surroundings.purgatory.appended_for_followers(self, info.base_offset, len(batch.data))
        return info

    def _flush(self, start_offset: int) -> None:
        self.unflushed.append(Unflushed(start_offset, self.log.log_end_offset))
        self._surroundings.group_commit.flush(self)

    def when_flushed(self, told: Told) -> None:
        """Says when all that was appended so far is on disk, or why it never will be. Something is `unflushed`."""
        self.unflushed[-1].waiting.append(told)

    def flushed(self) -> None:
        """A round of flushes has ended: what may be acknowledged now is; if the disk has failed, nothing ever will."""
        log = self.log
        if log.is_offline:
            self._refuse_all(ErrorCode.KAFKA_STORAGE_ERROR)
            return
        durable_end = log.flushed_offset + log.config.flush_messages - 1
        flushed = self.unflushed[: bisect_right(self.unflushed, durable_end, key=_end_offset)]
        del self.unflushed[: len(flushed)]
        told = [tell for append in flushed for tell in append.waiting]
        for tell in told:
            tell(ErrorCode.NONE)
        self.advance_high_watermark()

    def when_committed(self, end_offset: int, told: Told) -> Commit:
        """Tells when the records below `end_offset` are committed, or why they are not; `forget` ends the wait."""
        commit = Commit(end_offset, told)
        if self.commits and self.commits[-1].end_offset > end_offset:
            insort(self.commits, commit, key=_end_offset)  # A repetition of what is not committed yet.
        else:
            self.commits.append(commit)
        return commit

    def forget(self, commit: Commit) -> None:
        """Nobody waits for it any more."""
        if commit in self.commits:
            self.commits.remove(commit)

    def low_watermark(self) -> int:
        """Below it no live replica has records any more. Raises ApiError NOT_LEADER_OR_FOLLOWER."""
        return self.led().low_watermark(self.log.log_start_offset, self._surroundings.is_alive)

    def when_deleted(self, offset: int, told: Told) -> Deletion:
        """Tells when the low watermark has reached `offset`, which it has not yet, or why nobody here will know."""
        deletion = Deletion(offset, told)
        self.deletions[deletion] = None
        self._wake_followers()
        return deletion

    def forget_deletion(self, deletion: Deletion) -> None:
        """Nobody waits for it any more."""
        self.deletions.pop(deletion, None)

    def _finish_deletions(self) -> None:
        low_watermark = self.low_watermark()
        for deletion in [each for each in self.deletions if each.offset <= low_watermark]:
            if deletion in self.deletions:  # Being told may end the wait of another one.
                del self.deletions[deletion]
                deletion.told(ErrorCode.NONE)

    def advance_high_watermark(self) -> None:
        """Moves the high watermark to where the followers allow it, and tells who has waited for that."""
        log, leadership = self.log, self.leadership
        if leadership is not None:
            offset = leadership.high_watermark(
                log.high_watermark,
                log.log_end_offset,
                self.min_isr,
                self._surroundings.clock_ms() if leadership.followers else 0,
                self._surroundings.is_alive,
            )
            if self.unflushed:
                offset = min(offset, self.unflushed[0].start_offset)
            if offset > log.high_watermark:
                self._commit(offset)

    def _commit(self, high_watermark: int) -> None:
        log = self.log
        before = log.high_watermark
        had_undecided = log.last_stable_offset < before
        log.high_watermark = high_watermark
        commits = self.commits
        if commits and self.leadership is not None:
            verdict = self.leadership.verdict(self.min_isr)
            committed = commits[: bisect_right(commits, high_watermark, key=_end_offset)]
            del commits[: len(committed)]
            for commit in committed:
                commit.told(verdict)
        self._surroundings.committed(self)
        if self.resting_followers:
            self._wake_followers()
        if self.resting:
            self._wake_consumers()
        if self.waiting:
            self._surroundings.purgatory.appended(self, before, self._size_of(before, high_watermark))
            if had_undecided:
                self._surroundings.purgatory.decided(self)

    def _size_of(self, start_offset: int, end_offset: int) -> int:
        """The bytes of the records in between; of those in the first segment, where there are several."""
        try:
            region = self.log.read(start_offset, MAX_READ_BYTES, end_offset, True)
        except ApiError:
            return MAX_READ_BYTES  # Whoever waits is to be told of it.
        return 0 if region is None else len(region)

    def follower_fetched(self, replica: int, offset: int, log_start_offset: int) -> None:
        """A follower has everything below `offset`. Raises ApiError for a broker that has no replica here."""
        log, leadership = self.log, self.led()
        before = leadership.follower(replica).log_end_offset
        leadership.fetched(replica, offset, log_start_offset, log.log_end_offset, self._surroundings.clock_ms())
        change = leadership.expand(replica, log.high_watermark, self._surroundings.is_alive)
        if change is not None:
            self._surroundings.propose(self, change)
        if offset != before:
            self.advance_high_watermark()
        if self.deletions:
            self._finish_deletions()

    def is_in_sync(self, replica: int) -> bool:
        return self.leadership is not None and replica in self.leadership.isr

    def shrink_isr(self) -> None:
        """Takes those out of the ISR who have not been caught up for replica.lag.time.max.ms, and waits no more for
        those who were about to join it.
        """
        if self.leadership is not None:
            if self.commits:
                self.advance_high_watermark()
            change = self.leadership.shrink(self.log.log_end_offset, self._surroundings.clock_ms())
            if change is not None:
                self._surroundings.propose(self, change)

    def isr_settled(self, change: IsrChange, leader_epoch: int, isr: tuple[int, ...], partition_epoch: int) -> None:
        """The controller's answer to a proposal."""
        leadership = self.leadership
        if leadership is not None and leadership.settle(change, leader_epoch, isr, partition_epoch):
            self.image = replace(self.image, isr=isr, partition_epoch=partition_epoch)
            self.advance_high_watermark()
            self._wake_followers()

    def isr_refused(self, change: IsrChange, error: ErrorCode) -> bool:
        """The controller's refusal of a proposal: whether to repeat it."""
        if self.leadership is None:
            return False
        must_repeat = self.leadership.refused(change, error)
        if self.leadership.pending is None:
            # The high watermark has waited for whom this would have added, and no fetch need come that moves it.
            self.advance_high_watermark()
        return must_repeat

    # As follower.

    def append_fetched(
        self, records: memoryview | None, high_watermark: int, log_start_offset: int, now_ms: int
    ) -> None:
        """Takes over what the leader has answered. Raises ApiError CORRUPT_MESSAGE, KAFKA_STORAGE_ERROR,
        OFFSET_OUT_OF_RANGE.

        The high watermark only rises: what was committed stays committed, even if a new leader does not know it yet.
        """
        log = self.log
        batches = None if records is None else checked_batches(records)
        if batches:
            first = read_header(batches)
            end_offset = log.log_end_offset
            if log.log_start_offset == end_offset and first.base_offset < end_offset <= first.last_offset:
                # The leader's log starts inside a batch, which comes whole.
                log.truncate_fully_and_start_at(first.base_offset)
            end_offset = log.log_end_offset
            log.append_as_follower(batches, now_ms)
            if log.must_flush:
                self._flush(end_offset)
        committed = min(high_watermark, log.log_end_offset)
        if committed > log.high_watermark:
            self._commit(committed)
        if log.log_start_offset < log_start_offset <= log.high_watermark:
            log.advance_log_start_offset(log_start_offset)

    # For both.

    def check_leader_epoch(self, epoch: int) -> None:
        """Fences a client with old metadata, and sends one with newer metadata away until this broker knows it
        (KIP-320).
        """
        if epoch in (NO_EPOCH, self.leader_epoch):
            return
        if epoch < self.leader_epoch:
            raise ApiError(ErrorCode.FENCED_LEADER_EPOCH)
        raise ApiError(ErrorCode.UNKNOWN_LEADER_EPOCH)


def _end_offset(waits: Commit | Unflushed) -> int:
    return waits.end_offset
