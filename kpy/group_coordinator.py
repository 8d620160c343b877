"""The coordinator of consumer groups: partitions of __consumer_offsets, each with a machine of kpy/group.

What it adds to the shell (kpy/coordinator.py): a deleted topic takes the offsets committed for it along, the end of a
transaction decides about the offsets that the transaction has written, and commits are written in common.

Half of what a commit costs is its batch, and many clients commit at a time. So in one round of the poller (see
kpy/replica/purgatory.py) the first commit of each partition is carried out at once, and those that follow are kept
until the round ends, or until anything else is asked of that partition. Then they are judged one after the other, and
what they write becomes one batch; each is answered as it would have been.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.coordinator import (
    Asker,
    Call,
    Coordinator,
    Led,
    Replicas,
    StateTopic,
    Topics,
    Uncommitted,
    request_of,
)
from kpy.errors import ApiError, ErrorCode
from kpy.group.turn import GroupConfig
from kpy.machine import Effects, Request, size_in_batch
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.pending import Pending
from kpy.records.batch import HEADER_SIZE
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL
from kpy.storage.log import AppendInfo
from kpy.wire.offset_commit import OffsetCommitRequest

if TYPE_CHECKING:
    # Not at run time: the machine and its answers are imported with the first request or record of a group.
    from kpy.group.shard import GroupShard
    from kpy.wire.list_groups import ListedGroup


@dataclass(frozen=True, slots=True)
class GroupCoordinatorConfig:
    """The broker keys that the shell obeys; `groups` are those of the machines."""

    groups: GroupConfig = field(default_factory=GroupConfig)
    offsets_topic_num_partitions: int = 50
    offsets_topic_replication_factor: int = 3
    offsets_topic_segment_bytes: int = 100 * 1024 * 1024
    offsets_topic_compression_codec: int = 0
    offsets_commit_timeout_ms: int = 5_000

    def topic(self) -> StateTopic:
        return StateTopic(
            CONSUMER_OFFSETS,
            self.offsets_topic_num_partitions,
            self.offsets_topic_replication_factor,
            {
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(self.offsets_topic_segment_bytes),
            },
            Codec(self.offsets_topic_compression_codec),
            self.offsets_commit_timeout_ms,
        )


def _there_are_no_rounds(finish: Callable[[], None]) -> bool:
    return False


class GroupCoordinator(Coordinator["GroupShard"]):
    """All groups that this broker coordinates."""

    def __init__(
        self,
        replicas: Replicas,
        cluster: Topics,
        config: GroupCoordinatorConfig,
        rng: random.Random,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(config.topic(), replicas, cluster, now_ms)
        self._config = config
        self._rng = rng
        self._topics: Mapping[str, TopicImage] = {}
        self._gathered: dict[int, deque[Request]] = {}
        """The partitions that somebody has committed in during this round, and the commits that are still to be judged.
        """
        self.after_round: Callable[[Callable[[], None]], bool] = _there_are_no_rounds
        """Purgatory.after_round."""

    def tell(self, key: str, message: Any, client: Asker) -> Any:
        """As for any coordinator; what follows the first commit of a round waits for its end."""
        if type(message) is not OffsetCommitRequest:
            return super().tell(key, message, client)
        index = self.partition_for(key)
        led = self._led.get(index)
        if led is None or not led.is_loaded:
            return super().tell(key, message, client)
        gathered = self._gathered.get(index)
        if gathered is None:
            if self.after_round(self._write_all_gathered):
                self._gathered[index] = deque()
            return super().tell(key, message, client)
        call = Call(message, client.version)
        call.pending = Pending(may_be_overtaken=True)
        gathered.append(request_of(client, call))
        return call.pending

    def _write_all_gathered(self) -> None:
        """The round is over. A commit that an answer lets in here is not gathered where all is written already."""
        while self._gathered:
            index = next(iter(self._gathered))
            self._write_gathered(index)
            self._gathered.pop(index, None)

    def _write_gathered(self, index: int) -> None:
        gathered = self._gathered.get(index)
        # An answer may let in a commit more, or a request that ends this broker's leadership, which takes what is left.
        while gathered:
            led = self._led[index]
            assert led.machine is not None
            now_ms = self._now_ms()
            together, refused = self._judged(led, led.machine, gathered, now_ms)
            if together.records:
                self._carry_out(led, led.machine, together, now_ms)
            for effects in refused:
                self._carry_out(led, led.machine, effects, now_ms)

    def _judged(
        self, led: "Led[GroupShard]", machine: "GroupShard", gathered: deque[Request], now_ms: int
    ) -> tuple[Effects, list[Effects]]:
        """What as many commits as fit into a batch lead to, taken from the left; and those that write nothing."""
        limit_bytes = led.partition.log.config.max_message_bytes
        together, refused, size_bytes = Effects(), list[Effects](), HEADER_SIZE
        while gathered:
            # A group that is not there yet may be made by a commit before this one.
            if together.records and gathered[0].message.group_id not in machine.groups:
                break
            # One that does not fit is judged again with the next batch, which changes nothing: nothing is replayed yet.
            effects = machine.handle(gathered[0], now_ms)
            added_bytes = sum(size_in_batch(record) for record in effects.records)
            if together.records and size_bytes + added_bytes > limit_bytes:
                break
            gathered.popleft()
            if not effects.records:
                refused.append(effects)
                continue
            together.records += effects.records
            together.replies += effects.replies
            size_bytes += added_bytes
        return together, refused

    def _handle(self, led: "Led[GroupShard]", event: Any) -> None:
        if self._gathered:
            self._write_gathered(led.partition.partition)
        super()._handle(led, event)

    def _resign(self, index: int) -> None:
        super()._resign(index)
        gathered = self._gathered.pop(index, None)
        while gathered:
            call = gathered.popleft().token
            assert isinstance(call, Call)
            call.answer(self._refusal(call.message, call.version, ErrorCode.NOT_COORDINATOR))

    def list_groups(self, states: list[str], types: list[str]) -> "tuple[ErrorCode, list[ListedGroup]]":
        """Every group coordinated here. While a shard is loading, the list is not whole and says so."""
        error = ErrorCode.NONE
        groups: list[ListedGroup] = []
        for led in self._led.values():
            if not led.is_loaded:
                error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            elif led.machine is not None:
                groups += led.machine.listed(states, types)
        return error, groups

    def append_marker(self, index: int, marker: ValidBatch, *, committed: bool, now_ms: int) -> AppendInfo:
        """Write the end marker of a transaction, which decides about the offsets it has written.

        Raises ApiError; NOT_LEADER_OR_FOLLOWER also while the partition is loaded, which may have passed the place.
        """
        led = self._led.get(index)
        if led is None or not led.is_loaded:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        self._write_gathered(index)
        info = led.partition.append(marker, ACKS_ALL, now_ms)
        if led.machine is not None:
            led.machine.replay_end_of_transaction(marker.header.producer_id, committed=committed)
        if info.last_offset >= led.partition.high_watermark:
            # Nobody waits for it here, but an answer that shows these offsets must.
            led.uncommitted.append(Uncommitted(info.last_offset, [], [], now_ms))
        return info

    def apply(self, image: MetadataImage) -> None:
        super().apply(image)
        self._forget_deleted_topics(image)

    def _forget_deleted_topics(self, image: MetadataImage) -> None:
        """A topic under the name of a deleted one is another topic, where nobody has committed anything yet."""
        before, self._topics = self._topics, image.topics
        deleted = frozenset(
            name
            for name, topic in before.items()
            if topic is not image.topics.get(name)
            and (name not in image.topics or image.topics[name].topic_id != topic.topic_id)
        )
        if deleted:
            from kpy.group.events import TopicsDeleted

            for led in list(self._led.values()):
                if led.machine is not None:
                    self._handle(led, TopicsDeleted(deleted))

    def _new_machine(self) -> "GroupShard":
        from kpy.group.shard import GroupShard

        return GroupShard(self._config.groups, self._rng, self._partition_exists)

    def _partition_exists(self, topic: str, partition: int) -> bool:
        found = self._cluster.image.topics.get(topic)
        return found is not None and 0 <= partition < len(found.partitions)

    def _refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        from kpy.group.answers import refusal

        return refusal(message, version, error)

    def _append_refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        from kpy.group.answers import append_refusal

        return append_refusal(message, version, error)
