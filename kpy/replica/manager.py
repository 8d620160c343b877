"""The partitions of this broker, kept in step with the cluster's metadata (Kafka class ReplicaManager)."""

import logging
from collections.abc import Callable, Iterator, Mapping

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.replica.cold_reads import ColdReads
from kpy.replica.group_commit import GroupCommit, RunInThread
from kpy.replica.partition import Partition
from kpy.replica.purgatory import Purgatory
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

log = logging.getLogger("kpy.replica")


class ReplicaManager:
    """`apply` follows the metadata; `partition` finds what a client names."""

    def __init__(
        self,
        log_dirs: LogDirs,
        broker_id: int,
        topic_config: Callable[[Mapping[str, str]], LogConfig],
        now_ms: Callable[[], int],
        run_in_thread: RunInThread,
    ) -> None:
        self._log_dirs = log_dirs
        self._broker_id = broker_id
        self._topic_config = topic_config
        self._now_ms = now_ms
        self._topics: dict[str, dict[int, Partition | None]] = {}
        """None stands for a partition whose disk failed before it had a log."""
        self._applied: Mapping[str, TopicImage] = {}
        self._group_commit = GroupCommit(run_in_thread)
        self.cold_reads = ColdReads(run_in_thread)
        self.purgatory = Purgatory()
        self.on_commit: Callable[[Partition], None] = _nobody_waits
        """Told when the high watermark of a partition has moved later than with the append."""

    def __iter__(self) -> Iterator[Partition]:
        for partitions in self._topics.values():
            for partition in partitions.values():
                if partition is not None:
                    yield partition

    def partition(self, topic: str, index: int) -> Partition:
        """The partition, led by this broker.

        Raises ApiError UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, or KAFKA_STORAGE_ERROR.
        """
        partitions = self._topics.get(topic)
        partition = partitions.get(index) if partitions else None
        if partition is None:
            known = partitions is not None and index in partitions
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR if known else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if not partition.is_leader:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return partition

    def apply(self, image: MetadataImage) -> None:
        """Creates, configures and deletes logs until they are what `image` says. Topics that are the same object cost
        a look.
        """
        for name, topic in image.topics.items():
            before = self._applied.get(name)
            if topic is before:
                continue
            if before is not None and before.topic_id != topic.topic_id:
                self._delete(name)
                before = None
            self._create_or_change(topic, configs_changed=before is None or before.configs != topic.configs)
        for name in [name for name in self._applied if name not in image.topics]:
            self._delete(name)
        self._applied = image.topics

    def reconfigure(self) -> None:
        """The broker's own defaults have changed: every log gets its configuration anew."""
        for topic in self._applied.values():
            config = self._topic_config(topic.configs)
            for partition in self._topics[topic.name].values():
                if partition is not None:
                    partition.log.config = config

    def _create_or_change(self, topic: TopicImage, *, configs_changed: bool) -> None:
        config = self._topic_config(topic.configs)
        partitions = self._topics.setdefault(topic.name, {})
        for image in topic.partitions:
            partition = partitions.get(image.partition)
            try:
                if partition is not None:
                    if configs_changed:
                        partition.log.config = config
                    if image != partition.image:
                        partition.lead_or_follow(image)
                elif self._broker_id in image.replicas:
                    held = self._log_of(topic, image.partition, config)
                    partitions[image.partition] = Partition(
                        topic.name,
                        image,
                        held,
                        self._broker_id,
                        self.purgatory,
                        self._group_commit,
                        self._tell_of_commit,
                    )
            except ApiError as error:
                log.error("%s-%d cannot be served: %s", topic.name, image.partition, error)
                partitions[image.partition] = None

    def _log_of(self, topic: TopicImage, index: int, config: LogConfig) -> Log:
        """The partition's log, as it was found on disk or new. Raises ApiError KAFKA_STORAGE_ERROR."""
        known = self._log_dirs.logs.get((topic.name, index))
        if known is not None and known.topic_id == ZERO_ID:
            # partition.metadata was lost, in a power cut perhaps. The records are worth more than the doubt.
            known.assign_topic_id(topic.topic_id)
        if known is not None and known.topic_id != topic.topic_id:
            log.warning("%s belongs to a deleted topic of that name; deleting it", known.dir)
            self._log_dirs.delete_log(topic.name, index, self._now_ms())
            known = None
        if known is None:
            return self._log_dirs.create_log(topic.name, index, topic.topic_id, config)
        known.config = config
        return known

    def _delete(self, topic: str) -> None:
        for partition in self._topics.pop(topic, {}).values():
            if partition is None:
                continue
            partition.resign()
            self._log_dirs.delete_log(topic, partition.partition, self._now_ms())

    def _tell_of_commit(self, partition: Partition) -> None:
        self.on_commit(partition)


def _nobody_waits(partition: Partition) -> None:
    """What is to be told of a commit before anybody has asked for it."""
