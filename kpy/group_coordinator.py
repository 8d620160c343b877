"""The coordinator of consumer groups: partitions of __consumer_offsets, each with a machine of kpy/group.

What it adds to the shell (kpy/coordinator.py): a deleted topic takes the offsets committed for it along, and the end of
a transaction decides about the offsets that the transaction has written.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.coordinator import Coordinator, Replicas, StateTopic, Topics, Uncommitted
from kpy.errors import ApiError, ErrorCode
from kpy.group.answers import append_refusal, refusal
from kpy.group.events import TopicsDeleted
from kpy.group.shard import GroupShard
from kpy.group.turn import GroupConfig
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL
from kpy.storage.log import AppendInfo
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


class GroupCoordinator(Coordinator[GroupShard]):
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

    def list_groups(self, states: list[str], types: list[str]) -> tuple[ErrorCode, list[ListedGroup]]:
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
            for led in list(self._led.values()):
                if led.machine is not None:
                    self._handle(led, TopicsDeleted(deleted))

    def _new_machine(self) -> GroupShard:
        return GroupShard(self._config.groups, self._rng, self._partition_exists)

    def _partition_exists(self, topic: str, partition: int) -> bool:
        found = self._cluster.image.topics.get(topic)
        return found is not None and 0 <= partition < len(found.partitions)

    def _refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        return refusal(message, version, error)

    def _append_refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        return append_refusal(message, version, error)
