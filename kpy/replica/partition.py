"""One partition on this broker: its role, its log, and who waits for it (Kafka class Partition).

On one broker every partition has one replica, which leads: what is appended is committed at once, and the high
watermark is the log's end.
"""

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.records.validate import ValidBatch
from kpy.replica.purgatory import ParkedFetch, Purgatory
from kpy.storage.log import AppendInfo, Log

ACKS_ALL = -1
NO_EPOCH = -1


class Partition:
    """Appends go through here; reads take `log`, `high_watermark` and `waiting`."""

    __slots__ = (
        "_purgatory",
        "broker_id",
        "image",
        "is_leader",
        "leader_epoch",
        "log",
        "partition",
        "topic",
        "waiting",
    )

    def __init__(self, topic: str, image: PartitionImage, log: Log, broker_id: int, purgatory: Purgatory) -> None:
        self.topic = topic
        self.partition = image.partition
        self.log = log
        self.broker_id = broker_id
        self.waiting: dict[ParkedFetch, None] = {}
        self._purgatory = purgatory
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
            self.log.high_watermark = self.log.log_end_offset
        for fetch in tuple(self.waiting):
            self._purgatory.release(fetch)

    def append(self, batch: ValidBatch, acks: int, now_ms: int) -> AppendInfo:
        """Appends one batch as leader. Raises ApiError; then nothing was appended."""
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
            log.high_watermark = log.log_end_offset
            if self.waiting:
                self._purgatory.appended(self, len(batch.data))
                if batch.header.is_control:
                    self._purgatory.decided(self)
        return info

    def check_leader_epoch(self, epoch: int) -> None:
        """Fences a client with old metadata, and sends one with newer metadata away until this broker knows it
        (KIP-320).
        """
        if epoch in (NO_EPOCH, self.leader_epoch):
            return
        if epoch < self.leader_epoch:
            raise ApiError(ErrorCode.FENCED_LEADER_EPOCH)
        raise ApiError(ErrorCode.UNKNOWN_LEADER_EPOCH)
