"""The partitions of this broker and their roles (Kafka class ReplicaManager).

A single broker takes roles, and which logs to have, from its own metadata: `apply`. A broker with a `membership` takes
them from the cluster's controller: `become` and `stop`; from the metadata it takes configs only. Either way a partition
changes its role in `Partition.lead_or_follow`, and whom it follows in `fetchers`.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID, to_text
from kpy.metadata.image import MetadataImage, PartitionImage, TopicImage
from kpy.replica.cold_reads import ColdReads
from kpy.replica.group_commit import GroupCommit, RunInThread
from kpy.replica.leader import IsrChange
from kpy.replica.membership import Membership
from kpy.replica.partition import Partition, Surroundings
from kpy.replica.purgatory import Purgatory
from kpy.replica.throttles import Throttles
from kpy.storage.checkpoints import LOG_START_OFFSETS, TopicPartition
from kpy.storage.disk_job import DiskJob
from kpy.storage.log import Log
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

log = logging.getLogger("kpy.replica")

EPOCH_DURING_DELETE = -2
NO_EPOCH = -1
LAG_TIME_MAX_MS = 30_000


class Fetchers(Protocol):
    """Who brings the records of partitions that others lead."""

    def follow(self, partition: Partition) -> None: ...
    def leave(self, partition: Partition) -> None: ...
    async def run(self) -> None: ...


class Proposals(Protocol):
    """Who asks the controller for another ISR."""

    def propose(self, partition: Partition, change: IsrChange) -> None: ...
    async def run(self) -> None: ...


def _ask_nobody(partition: Partition, change: IsrChange) -> None:
    """A single broker has no controller to ask for another ISR, and no followers that would make it ask."""


def _clock_ms() -> int:
    return int(trio.current_time() * 1000)


def _nobody_waits(partition: Partition) -> None:
    """What is to be told of a commit before anybody has asked for it."""


@dataclass(slots=True)
class Cooperation:
    """What a broker that is one of several has more than a single one."""

    membership: Membership
    fetchers: Fetchers
    proposals: Proposals
    topic_configs: Callable[[str], Mapping[str, str]]
    """A topic's own overrides, which may be known here before a controller tells of the topic, or after."""
    throttles: Throttles
    lag_time_max_ms: int = LAG_TIME_MAX_MS


class ReplicaManager:
    """`apply` follows the metadata; `become` and `stop` obey a controller; `partition` finds what a client names."""

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
        self._image: MetadataImage | None = None
        self._cooperation: Cooperation | None = None
        self.log_dirs.mover.on_moved = self._moved
        self.cold_reads = ColdReads(run_in_thread)
        self.purgatory = Purgatory()
        self.throttles = Throttles(broker_id)
        self.on_commit: Callable[[Partition], None] = _nobody_waits
        """Told when the high watermark of a partition has moved later than with the append."""
        self._surroundings = Surroundings(
            broker_id,
            self.purgatory,
            GroupCommit(run_in_thread),
            _clock_ms,
            self._lag_time_max_ms,
            self.is_alive,
            _ask_nobody,
            self._tell_of_commit,
        )

    def cooperate(self, cooperation: Cooperation) -> None:
        """From now on the roles come from a controller. Called before the first `apply`."""
        self._cooperation = cooperation
        self.throttles = cooperation.throttles
        self._surroundings.propose = cooperation.proposals.propose

    def tasks(self) -> "list[Callable[[], Awaitable[None]]]":
        """What has to run beside the serving of requests, until cancelled."""
        cooperation = self._cooperation
        if cooperation is None:
            return []
        return [cooperation.fetchers.run, cooperation.proposals.run, self._watch_followers]

    async def _watch_followers(self) -> None:
        while True:
            await trio.sleep(self._lag_time_max_ms() / 2000)
            self.shrink_isrs()

    def _tell_of_commit(self, partition: Partition) -> None:
        self.on_commit(partition)

    def _lag_time_max_ms(self) -> int:
        return LAG_TIME_MAX_MS if self._cooperation is None else self._cooperation.lag_time_max_ms

    def is_alive(self, broker_id: int) -> bool:
        """Whether the broker is registered, as far as is known here."""
        return self._image is not None and broker_id in self._image.brokers

    def __iter__(self) -> Iterator[Partition]:
        for partitions in self._topics.values():
            for partition in partitions.values():
                if partition is not None:
                    yield partition

    def partition(self, topic: str, index: int) -> Partition:
        """The partition, led by this broker.

        Raises ApiError UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, or KAFKA_STORAGE_ERROR.
        """
        partition = self.replica(topic, index)
        if not partition.is_leader:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return partition

    def replica(self, topic: str, index: int) -> Partition:
        """The partition, led or followed by this broker.

        Raises ApiError UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER if others have it, or KAFKA_STORAGE_ERROR.
        """
        partitions = self._topics.get(topic)
        partition = partitions.get(index) if partitions else None
        if partition is None:
            if partitions is not None and index in partitions:
                raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR)
            image = self._image.topics.get(topic) if self._image is not None else None
            elsewhere = image is not None and 0 <= index < len(image.partitions)
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER if elsewhere else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return partition

    def apply(self, image: MetadataImage) -> None:
        """Creates, configures and deletes logs until they are what `image` says. Topics that are the same object cost
        a look.
        """
        gone = self._image.brokers.keys() - image.brokers.keys() if self._image is not None else ()
        self._image = image
        if self._cooperation is not None:
            self._apply_configs(image)
            if gone:
                self._wait_no_more_for_the_gone()
            return
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

    def _wait_no_more_for_the_gone(self) -> None:
        """A follower that was about to join the ISR holds the high watermark back while it lives, and its end is told
        by no fetch.
        """
        for partition in self:
            if partition.commits:
                partition.advance_high_watermark()

    def _set_unknown_aside(self) -> None:
        """Logs that were found at the start and that the metadata does not know are kept, but not as partitions."""
        for topic, index in list(self.log_dirs.logs):
            if index not in self._topics.get(topic, {}):
                self.log_dirs.set_aside_log(topic, index, "the metadata knows no such partition of this broker")

    def _apply_configs(self, image: MetadataImage) -> None:
        before, self._applied = self._applied or {}, image.topics
        for name, topic in image.topics.items():
            known = before.get(name)
            if topic is not known and (known is None or known.configs != topic.configs):
                self._reconfigure(topic)

    def reconfigure(self) -> None:
        """The broker's own defaults have changed: every log gets its configuration anew."""
        for topic in (self._applied or {}).values():
            self._reconfigure(topic)

    def _reconfigure(self, topic: TopicImage) -> None:
        config = self._topic_config(topic.configs)
        for partition in self._topics.get(topic.name, {}).values():
            if partition is not None:
                partition.log.config = config

    def _moved(self, key: TopicPartition, moved: Log) -> None:
        topic, index = key
        partition = self._topics.get(topic, {}).get(index)
        if partition is not None:
            partition.log = moved
            if self._cooperation is not None and not partition.is_leader:
                self._cooperation.fetchers.follow(partition)

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

    def clock_ms(self) -> int:
        """Now, by the clock that the partitions judge their followers by."""
        return self._surroundings.clock_ms()

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
                    held = self._log_of(topic, image.partition, config, is_new=self._applied is not None)
                    partitions[image.partition] = Partition(topic.name, image, held, self._surroundings)
            except ApiError as error:
                log.error("%s-%d cannot be served: %s", topic.name, image.partition, error)
                partitions[image.partition] = None

    def _log_of(self, topic: TopicImage, index: int, config: LogConfig, *, is_new: bool) -> Log:
        """The partition's log, as it was found on disk or new. Raises ApiError KAFKA_STORAGE_ERROR."""
        known = self.log_dirs.logs.get((topic.name, index))
        if known is not None and known.topic_id == ZERO_ID:
            # partition.metadata was lost, in a power cut perhaps. The records are worth more than the doubt.
            known.assign_topic_id(topic.topic_id)
        if known is not None and known.topic_id != topic.topic_id:
            self.log_dirs.set_aside_log(topic.name, index, "it belongs to another topic of that name, by its topic id")
            known = None
        if known is None:
            return self.log_dirs.create_log(topic.name, index, topic.topic_id, config, is_new)
        known.config = config
        return known

    def _delete(self, topic: str) -> None:
        for partition in self._topics.pop(topic, {}).values():
            if partition is None:
                continue
            partition.resign()
            self.log_dirs.delete_log(topic, partition.partition, self._now_ms())

    # What a controller says.

    def become(self, topic: str, topic_id: bytes, image: PartitionImage, *, is_new: bool) -> ErrorCode:
        """Takes a role from LeaderAndIsr, and begins or stops to fetch; the answer for this partition.

        A role of the epoch that is known already is STALE_CONTROLLER_EPOCH, which the controller expects. `is_new` says
        that the partition was created just now: only then may a broker with a failed disk make its log.
        """
        cooperation = self._cooperation
        assert cooperation is not None
        key = topic, image.partition
        partitions = self._topics.setdefault(topic, {})
        partition = partitions.get(image.partition)
        if image.partition in partitions and self.is_offline(topic, image.partition):
            return ErrorCode.KAFKA_STORAGE_ERROR
        held = self.log_dirs.logs.get(key)
        if held is not None and ZERO_ID not in (held.topic_id, topic_id) and held.topic_id != topic_id:
            of_log, of_controller = to_text(held.topic_id), to_text(topic_id)
            log.error("%s is of the topic id %s, the controller's is %s: not served", held.dir, of_log, of_controller)
            return ErrorCode.INCONSISTENT_TOPIC_ID
        epoch = NO_EPOCH if partition is None else partition.leader_epoch
        if image.leader_epoch <= epoch:
            if image.leader_epoch == epoch and held is not None and held.topic_id == ZERO_ID != topic_id:
                held.assign_topic_id(topic_id)
                return ErrorCode.NONE
            return ErrorCode.STALE_CONTROLLER_EPOCH
        if self._broker_id not in image.replicas:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if partition is not None and image.partition_epoch < partition.image.partition_epoch:
            return ErrorCode.NONE
        try:
            if partition is None:
                partition = self._make_partition(topic, topic_id, image, is_new=is_new)
                if partition is None:
                    return ErrorCode.NONE
            elif not self._can_take(topic, image):
                return ErrorCode.NONE
            else:
                cooperation.fetchers.leave(partition)
                partition.lead_or_follow(image)
        except ApiError as error:
            log.error("%s-%d cannot be served: %s", topic, image.partition, error)
            if partition is not None:
                partition.resign()
            partitions[image.partition] = None
            return error.code
        if not partition.is_leader and image.leader >= 0:
            cooperation.fetchers.follow(partition)
        return ErrorCode.NONE

    def _can_take(self, topic: str, image: PartitionImage) -> bool:
        """A leader that is not known to live cannot be followed; the controller will tell of another one."""
        if image.leader == self._broker_id or self.is_alive(image.leader):
            return True
        if image.leader >= 0:
            log.warning("%s-%d has leader %d, who is not known to live", topic, image.partition, image.leader)
        return False

    def _make_partition(self, topic: str, topic_id: bytes, image: PartitionImage, *, is_new: bool) -> Partition | None:
        """None if it has a log now, but nobody to follow. Raises ApiError KAFKA_STORAGE_ERROR."""
        assert self._cooperation is not None
        found = self.log_dirs.logs.get((topic, image.partition))
        if found is not None and topic_id == ZERO_ID:
            topic_id = found.topic_id  # An old controller knows no ids.
        topic_image = TopicImage(topic, topic_id, (), self._cooperation.topic_configs(topic))
        held = self._log_of(topic_image, image.partition, self._topic_config(topic_image.configs), is_new=is_new)
        if not self._can_take(topic, image):
            return None
        partition = Partition(topic, image, held, self._surroundings)
        self._topics[topic][image.partition] = partition
        return partition

    def stop(self, topic: str, index: int, leader_epoch: int, *, delete: bool) -> ErrorCode:
        """Stops a replica as StopReplica says, and deletes its log; the answer for this partition."""
        cooperation = self._cooperation
        assert cooperation is not None
        key = topic, index
        partitions = self._topics.get(topic, {})
        partition = partitions.get(index)
        if partition is None and index in partitions:
            return ErrorCode.KAFKA_STORAGE_ERROR
        if partition is not None:
            if leader_epoch not in (EPOCH_DURING_DELETE, NO_EPOCH) and leader_epoch < partition.leader_epoch:
                return ErrorCode.FENCED_LEADER_EPOCH
            cooperation.fetchers.leave(partition)
        if not delete:
            return ErrorCode.NONE
        if partition is not None:
            partition.resign()
            del partitions[index]
            if not partitions:
                del self._topics[topic]
        try:
            if key in self.log_dirs.logs:
                self.log_dirs.delete_log(topic, index, self._now_ms())
        except ApiError as error:
            return error.code
        return ErrorCode.NONE

    def shrink_isrs(self) -> None:
        """Looks after the followers of every partition that this broker leads."""
        for partition in self:
            partition.shrink_isr()
