"""One partition on this broker: its role, its log, and who waits for it (Kafka class Partition).

On one broker every partition has one replica, which leads: what is appended is committed as soon as it may be
acknowledged, and the high watermark follows. That is at once, unless flush.messages demands that it is on disk before
(group_commit.py): then it waits in `unflushed`, and whoever has to know is told by `when_flushed`.
"""

from collections import deque
from collections.abc import Callable

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.records.validate import ValidBatch
from kpy.replica.group_commit import GroupCommit
from kpy.replica.purgatory import ParkedFetch, Purgatory
from kpy.storage.log import AppendInfo, Log

ACKS_ALL = -1
NO_EPOCH = -1


Told = Callable[[ErrorCode], None]


class Unflushed:
    """One append that may not be acknowledged or read yet; `waiting` are told when it may, or why it never will."""

    __slots__ = ("end_offset", "size_bytes", "waiting")

    def __init__(self, end_offset: int, size_bytes: int) -> None:
        self.end_offset = end_offset
        self.size_bytes = size_bytes
        self.waiting: list[Told] = []


class Partition:
    """Appends go through here; reads take `log`, `high_watermark` and `waiting`."""

    __slots__ = (
        "_group_commit",
        "_on_commit",
        "_purgatory",
        "broker_id",
        "image",
        "is_leader",
        "leader_epoch",
        "log",
        "partition",
        "topic",
        "unflushed",
        "waiting",
    )

    def __init__(
        self,
        topic: str,
        image: PartitionImage,
        log: Log,
        broker_id: int,
        purgatory: Purgatory,
        group_commit: GroupCommit,
        on_commit: "Callable[[Partition], None]",
    ) -> None:
        self.topic = topic
        self.partition = image.partition
        self.log = log
        self.broker_id = broker_id
        self.waiting: dict[ParkedFetch, None] = {}
        self.unflushed: deque[Unflushed] = deque()
        self._purgatory = purgatory
        self._group_commit = group_commit
        self._on_commit = on_commit
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

    def lead_or_follow(self, image: PartitionImage) -> None:
        """Takes the role that the metadata gives this broker."""
        self.image = image
        self.leader_epoch = image.leader_epoch
        self.is_leader = image.leader == self.broker_id
        if self.is_leader:
            self.log.start_leader_epoch(image.leader_epoch)
            if not self.unflushed:
                self.log.high_watermark = self.log.log_end_offset
        else:
            self._refuse_unflushed(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._release_fetches()

    def resign(self) -> None:
        """The partition is no more: whoever waits for something here is sent away."""
        self.is_leader = False
        self._refuse_unflushed(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._release_fetches()

    def _release_fetches(self) -> None:
        for fetch in tuple(self.waiting):
            self._purgatory.release(fetch)

    def append(self, batch: ValidBatch, acks: int, now_ms: int) -> AppendInfo:
        """Appends one batch as leader. Raises ApiError; then nothing was appended.

        Afterwards the batch may be acknowledged if nothing is `unflushed`, else by `when_flushed`.
        """
        log = self.log
        # A topic cannot demand more replicas than it has (Partition.effectiveMinIsr).
        min_isr = min(log.config.min_insync_replicas, len(self.image.replicas))
        if acks == ACKS_ALL and len(self.image.isr) < min_isr:
            raise ApiError(
                ErrorCode.NOT_ENOUGH_REPLICAS,
                f"The size of the current ISR {list(self.image.isr)} is insufficient to satisfy the min.isr requirement"
                f" of {min_isr} for partition {self.topic}-{self.partition}",
            )
        info = log.append_as_leader(batch, self.leader_epoch, now_ms)
        if not info.is_duplicate:
            if log.log_end_offset - log.flushed_offset < log.config.flush_messages:
                log.high_watermark = log.log_end_offset
                if self.waiting:
                    self._purgatory.appended(self, len(batch.data))
                    if batch.header.is_control:
                        self._purgatory.decided(self)
            else:
                self.unflushed.append(Unflushed(log.log_end_offset, len(batch.data)))
                self._group_commit.flush(self)
        return info

    def when_flushed(self, told: Told) -> None:
        """Says when all that was appended so far may be acknowledged, or why it may not. Something is `unflushed`."""
        self.unflushed[-1].waiting.append(told)

    def flushed(self) -> None:
        """A round of flushes has ended: what may be acknowledged now is; if the disk has failed, nothing ever will."""
        log = self.log
        if log.is_offline:
            self._refuse_unflushed(ErrorCode.KAFKA_STORAGE_ERROR)
            return
        unflushed = self.unflushed
        had_undecided = log.last_stable_offset < log.high_watermark
        readable_bytes = 0
        told: list[Told] = []
        while unflushed and unflushed[0].end_offset - log.flushed_offset < log.config.flush_messages:
            append = unflushed.popleft()
            log.high_watermark = max(log.high_watermark, append.end_offset)
            readable_bytes += append.size_bytes
            told += append.waiting
        for tell in told:
            tell(ErrorCode.NONE)
        if readable_bytes:
            self._on_commit(self)
            if self.waiting:
                self._purgatory.appended(self, readable_bytes)
                if had_undecided:
                    self._purgatory.decided(self)

    def _refuse_unflushed(self, error: ErrorCode) -> None:
        told = [tell for append in self.unflushed for tell in append.waiting]
        self.unflushed.clear()
        for tell in told:
            tell(error)

    def check_leader_epoch(self, epoch: int) -> None:
        """Fences a client with old metadata, and sends one with newer metadata away until this broker knows it
        (KIP-320).
        """
        if epoch in (NO_EPOCH, self.leader_epoch):
            return
        if epoch < self.leader_epoch:
            raise ApiError(ErrorCode.FENCED_LEADER_EPOCH)
        raise ApiError(ErrorCode.UNKNOWN_LEADER_EPOCH)
