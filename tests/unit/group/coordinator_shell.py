"""A group coordinator whose logs are in memory, and what is asked of it."""

import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kpy.controller.topics import CONSUMER_OFFSETS
from kpy.errors import ApiError, ErrorCode
from kpy.group.turn import GroupConfig
from kpy.group_coordinator import GroupCoordinator, GroupCoordinatorConfig
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.pending import Pending
from kpy.records.batch import BatchHeader, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.log import AppendInfo
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic

T0 = TopicImage("t", b"t" * 16, tuple(PartitionImage(index, 0, 0, (0,), (0,)) for index in range(3)))


@dataclass
class FakeLogConfig:
    max_message_bytes: int = 1_000_000


@dataclass
class FakeLog:
    batches: list[tuple[BatchHeader, memoryview]] = field(default_factory=list)
    config: FakeLogConfig = field(default_factory=FakeLogConfig)
    log_start_offset: int = 0
    log_end_offset: int = 0
    broken: bool = False

    def read_batches(self, start_offset: int, end_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        for header, batch in self.batches:
            if self.broken:
                raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, "the disk is gone")
            if start_offset <= header.last_offset and header.base_offset < end_offset:
                yield header, batch

    def write(self, data: bytes) -> int:
        header = read_header(data)
        self.batches.append((header._replace(base_offset=self.log_end_offset), memoryview(data)))
        self.log_end_offset += header.last_offset_delta + 1
        return self.log_end_offset - 1


@dataclass(eq=False)
class FakePartition:
    """A partition that commits at once, unless told otherwise."""

    partition: int
    topic: str = CONSUMER_OFFSETS
    log: FakeLog = field(default_factory=FakeLog)
    commits: bool = True
    leader_epoch: int = 0
    high_watermark: int = 0
    failing: ErrorCode | None = None

    def append(self, batch: ValidBatch, acks: int, now_ms: int) -> AppendInfo:
        if self.failing is not None:
            raise ApiError(self.failing)
        assert acks == -1
        last_offset = self.log.write(bytes(batch.data))
        if self.commits:
            self.high_watermark = last_offset + 1
        return AppendInfo(last_offset - batch.header.last_offset_delta, last_offset, -1, 0, False)


class FakeReplicas:
    def __init__(self) -> None:
        self.led: dict[int, FakePartition] = {}

    def partition(self, topic: str, index: int) -> FakePartition:
        if index not in self.led:
            raise ApiError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return self.led[index]


T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for here."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        result: T = stopped.value
        return result
    raise AssertionError("it waits")


class FakeCluster:
    """Creates topics on broker 0, and tells whoever follows."""

    def __init__(self) -> None:
        self.image = MetadataImage("cluster", 0, {0: BrokerImage(0, None, {})}, {"t": T0}, {}, {})
        self.follow: Callable[[MetadataImage], None] = lambda image: None

    async def create_internal_topic(
        self, name: str, num_partitions: int, replication_factor: int, configs: Mapping[str, str]
    ) -> TopicImage:
        if name not in self.image.topics:
            partitions = tuple(
                PartitionImage(index, 0, 0, (0,) * replication_factor, (0,)) for index in range(num_partitions)
            )
            self.put(TopicImage(name, b"o" * 16, partitions, configs))
        return self.image.topics[name]

    def put(self, topic: TopicImage) -> None:
        self.image = replace(self.image, topics={**self.image.topics, topic.name: topic})
        self.follow(self.image)


@dataclass
class Asking:
    client_id: str = "c"
    host: str = "127.0.0.1"
    version: int = 3


class Late:
    """An answer that comes later, and what it is then."""

    def __init__(self, pending: Pending[Any]) -> None:
        self.pending = pending
        self.responses: list[Any] = []
        self.on_answer: Callable[[], None] = lambda: None
        pending.deliver_to(self._deliver)

    def _deliver(self, response: Any) -> None:
        self.responses.append(response)
        self.on_answer()

    @property
    def done(self) -> bool:
        return self.pending.done


class Round:
    """A round of the poller."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] | None = []

    def after_round(self, finish: Callable[[], None]) -> bool:
        if self.waiting is None:
            return False
        self.waiting.append(finish)
        return True

    def end(self) -> None:
        waiting, self.waiting = self.waiting or [], None
        for finish in waiting:
            finish()


class Shell:
    """A coordinator of one partition, and what is around it."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 1_000, offsets_topic_replication_factor: int = 1) -> None:
        self.replicas = FakeReplicas()
        self.cluster = FakeCluster()
        self.partition = FakePartition(0)
        self.replicas.led[0] = self.partition
        self.groups = GroupCoordinator(
            self.replicas,
            self.cluster,
            GroupCoordinatorConfig(
                GroupConfig(),
                offsets_topic_num_partitions=1,
                offsets_topic_replication_factor=offsets_topic_replication_factor,
                offsets_commit_timeout_ms=5_000,
            ),
            random.Random(1),
            now_ms,
        )
        self.cluster.follow = self.groups.apply

    def started(self) -> "Shell":
        at_once(self.groups.ensure_topic())
        return self

    def again(self) -> None:
        """The metadata of the offsets topic changes: the coordinator looks again at what it leads."""
        topic = self.cluster.image.topics[CONSUMER_OFFSETS]
        self.cluster.put(replace(topic, configs=dict(topic.configs)))

    def ask(self, message: Any, version: int = 3) -> Any:
        """The response, or a Late one."""
        answer = self.groups.tell(message.group_id, message, Asking(version=version))
        return Late(answer) if isinstance(answer, Pending) else answer

    def commit(self, offset: int = 5, *, group_id: str = "g", generation_id: int = -1, metadata: str = "") -> Any:
        partition = OffsetCommitRequestPartition(0, offset, committed_metadata=metadata)
        topics = [OffsetCommitRequestTopic(name="t", partitions=[partition])]
        return self.ask(OffsetCommitRequest(group_id, generation_id, topics=topics))

    def begin_round(self) -> Round:
        round_ = Round()
        self.groups.after_round = round_.after_round
        return round_

    def fetch(self) -> Any:
        return self.ask(OffsetFetchRequest("g", [OffsetFetchRequestTopic("t", [0])]))


def told(answer: Any) -> Any:
    """The response of an answer that came later."""
    assert isinstance(answer, Late)
    assert len(answer.responses) == 1, "it is still waiting"
    return answer.responses[0]


def error_of(response: Any) -> ErrorCode:
    return ErrorCode(response.topics[0].partitions[0].error_code)


def join(member_id: str = "") -> JoinGroupRequest:
    return JoinGroupRequest("g", 10_000, 60_000, member_id, None, "consumer", [JoinGroupRequestProtocol("range", b"")])
