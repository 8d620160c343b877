"""The partitions of this broker, kept in step with the cluster's metadata (Kafka class ReplicaManager)."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import trio

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.replica.cold_reads import ColdReads
from kpy.replica.group_commit import GroupCommit, RunInThread
from kpy.replica.partition import Partition
from kpy.replica.purgatory import Purgatory
from kpy.storage.checkpoints import LOG_START_OFFSETS, TopicPartition
from kpy.storage.disk_job import DiskJob
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
        self.log_dirs = log_dirs
        self._broker_id = broker_id
        self._topic_config = topic_config
        self._now_ms = now_ms
        self._topics: dict[str, dict[int, Partition | None]] = {}
        """None stands for a partition whose disk failed before it had a log."""
        self._applied: Mapping[str, TopicImage] | None = None
        self.log_dirs.mover.on_moved = self._moved
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
        applied = self._applied or {}
        for name, topic in image.topics.items():
            before = applied.get(name)
            if topic is before:
                continue
            if before is not None and before.topic_id != topic.topic_id:
                self._delete(name)
                before = None
            self._create_or_change(topic, configs_changed=before is None or before.configs != topic.configs)
        for name in [name for name in applied if name not in image.topics]:
            self._delete(name)
        if self._applied is None:
            self._set_unknown_aside()
        self._applied = image.topics

    def _set_unknown_aside(self) -> None:
        """Logs that were found at the start and that the metadata does not know are kept, but not as partitions."""
        for topic, index in list(self.log_dirs.logs):
            if index not in self._topics.get(topic, {}):
                self.log_dirs.set_aside_log(topic, index, "the metadata knows no such partition of this broker")

    def reconfigure(self) -> None:
        """The broker's own defaults have changed: every log gets its configuration anew."""
        for topic in (self._applied or {}).values():
            config = self._topic_config(topic.configs)
            for partition in self._topics[topic.name].values():
                if partition is not None:
                    partition.log.config = config

    def _moved(self, key: TopicPartition, moved: Log) -> None:
        topic, index = key
        partition = self._topics.get(topic, {}).get(index)
        if partition is not None:
            partition.log = moved

    def move(self, topic: str, index: int, path: str) -> None:
        """Starts to move the partition's log into the data directory at `path` (KIP-113).

        Raises ApiError INVALID_TOPIC_EXCEPTION, LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR; and for a partition without a
        log, whose directory is remembered until it is created, UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER.
        """
        mover, key = self.log_dirs.mover, (topic, index)
        target = mover.check(key, path)
        partitions = self._topics.get(topic, {})
        partition = partitions.get(index)
        if partition is None:
            if index in partitions:
                raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR)
            mover.prefer(key, target)
            raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if partition.log.is_offline:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR)
        mover.begin(key, target, self._now_ms())

    def is_offline(self, topic: str, index: int) -> bool:
        """Whether the partition's disk has failed."""
        partition = self._topics.get(topic, {}).get(index)
        return partition is None or partition.log.is_offline

    async def save_log_start_offsets(self) -> None:
        """Makes durable where logs begin."""
        await self.carry_out(self.log_dirs.checkpoint_jobs(LOG_START_OFFSETS))

    async def carry_out(self, jobs: Iterable[DiskJob]) -> None:
        """Runs the jobs one by one, each in a thread, and finishes each in this one."""
        for job in jobs:
            try:
                await trio.to_thread.run_sync(job.run)
            except OSError as error:
                self.log_dirs.fail(job.path, error)
            else:
                job.done()

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
        known = self.log_dirs.logs.get((topic.name, index))
        if known is not None and known.topic_id == ZERO_ID:
            # partition.metadata was lost, in a power cut perhaps. The records are worth more than the doubt.
            known.assign_topic_id(topic.topic_id)
        if known is not None and known.topic_id != topic.topic_id:
            self.log_dirs.set_aside_log(topic.name, index, "it belongs to another topic of that name, by its topic id")
            known = None
        if known is None:
            is_new = self._applied is not None
            return self.log_dirs.create_log(topic.name, index, topic.topic_id, config, is_new)
        known.config = config
        return known

    def _delete(self, topic: str) -> None:
        for partition in self._topics.pop(topic, {}).values():
            if partition is None:
                continue
            partition.resign()
            self.log_dirs.delete_log(topic, partition.partition, self._now_ms())

    def _tell_of_commit(self, partition: Partition) -> None:
        self.on_commit(partition)


def _nobody_waits(partition: Partition) -> None:
    """What is to be told of a commit before anybody has asked for it."""
