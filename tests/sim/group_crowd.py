"""A crowd of group members, one coordinator with a log in memory, and what can go wrong between them, on a mock clock.

Members are not tasks but objects that a queue of events wakes, so a thousand of them cost little. They speak the
protocol as clients do: join, sync, fetch what is committed, then heartbeat and commit; one request each at a time. The
coordinator is the real one, on a partition whose high watermark may lag and whose appends may fail. When it is
restarted, what was not committed yet may be lost with it, as with a leader that dies, and every request under way is.

Everything random comes from one seed, so a run can be had again.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

import trio

from kpy.errors import ApiError, ErrorCode
from kpy.group.turn import GroupConfig
from kpy.group_coordinator import GroupCoordinator, GroupCoordinatorConfig
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.pending import Pending
from kpy.records.batch import BatchHeader, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.log import AppendInfo
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

GROUP = "crowd"
START_MS = 1_700_000_000_000
SESSION_MS = 8_000
REBALANCE_MS = 12_000
HEARTBEAT_MS = 3_000
RETRY_MS = 200
MOMENT_MS = 20
"""Events happen at multiples of it, in the order of their making, so that a crowd needs fewer wakes of the clock."""
MAX_MESSAGE_BYTES = 1 << 20


@dataclass
class LogConfig:
    max_message_bytes: int = MAX_MESSAGE_BYTES


@dataclass
class Log:
    """The batches of one partition, in memory."""

    batches: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    config: LogConfig = field(default_factory=LogConfig)
    log_start_offset: int = 0
    log_end_offset: int = 0

    def read_batches(self, start_offset: int, end_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        for base_offset, data in self.batches:
            if start_offset <= base_offset < end_offset:
                yield read_header(data)._replace(base_offset=base_offset), memoryview(data)

    def truncate(self, end_offset: int) -> None:
        self.batches = [each for each in self.batches if each[0] < end_offset]
        self.log_end_offset = min(self.log_end_offset, end_offset)


class SimPartition:
    """The one partition of __consumer_offsets. Its followers acknowledge after `lag_ms`."""

    topic = "__consumer_offsets"
    partition = 0

    def __init__(self, world: "World") -> None:
        self.world = world
        self.log = Log()
        self.leader_epoch = 0
        self.high_watermark = 0

    def append(self, batch: ValidBatch, acks: int, now_ms: int) -> AppendInfo:
        if self.world.appends_fail:
            raise ApiError(ErrorCode.NOT_ENOUGH_REPLICAS)
        base_offset = self.log.log_end_offset
        self.log.batches.append((base_offset, bytes(batch.data)))
        self.log.log_end_offset = base_offset + batch.header.last_offset_delta + 1
        if self.world.lag_ms:
            self.world.after(self.world.lag_ms, self.followers_have, self.log.log_end_offset, self.leader_epoch)
        else:
            self.high_watermark = self.log.log_end_offset
        return AppendInfo(base_offset, self.log.log_end_offset - 1, -1, 0, False)

    def followers_have(self, end_offset: int, leader_epoch: int) -> None:
        if leader_epoch == self.leader_epoch and end_offset > self.high_watermark:
            self.high_watermark = end_offset
            if self.world.coordinator is not None:
                self.world.coordinator.committed(0)


class SimCluster:
    """One topic to consume, and the offsets topic."""

    def __init__(self, partitions: int) -> None:
        placed = [PartitionImage(index, 0, 0, (0,), (0,)) for index in range(partitions)]
        topic = TopicImage("t", b"t" * 16, tuple(placed), {})
        offsets = TopicImage(SimPartition.topic, b"o" * 16, tuple(placed[:1]), {})
        self.image = MetadataImage("cluster", 0, {0: BrokerImage(0, None, {})}, {"t": topic}, {}, {})
        self.image = replace(self.image, topics={"t": topic, offsets.name: offsets})

    def create_internal_topic(
        self, name: str, num_partitions: int, replication_factor: int, configs: Mapping[str, str]
    ) -> TopicImage:
        return self.image.topics[name]


@dataclass
class Asking:
    client_id: str
    host: str
    version: int


class World:
    """The coordinator, as long as it is up, and what all members have been told."""

    def __init__(self, seed: int, members: int) -> None:
        self.random = random.Random(seed)
        chance = self.random
        self.partitions = chance.choice([members, members // 2 + 1, 2 * members])
        self.partition = SimPartition(self)
        self.cluster = SimCluster(self.partitions)
        self.config = GroupCoordinatorConfig(
            GroupConfig(group_initial_rebalance_delay_ms=chance.choice([0, 0, 3_000])),
            offsets_topic_num_partitions=1,
        )
        self.coordinator: GroupCoordinator | None = None
        self.life = 0
        self.appends_fail = False
        self.lag_ms = 0
        self.members: list[Member] = []
        self.owners: dict[tuple[int, int], str] = {}
        """(generation, partition) -> member, of every assignment that anybody was ever told."""
        self.acknowledged: dict[int, int] = {}
        """partition -> the offset of the last commit that was answered well."""
        self.trace: list[tuple[int, str, str]] = []
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._sooner = trio.Event()

    # -- time --------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return START_MS + int(trio.current_time() * 1_000)

    def after(self, delay_ms: int, what: Callable[..., None], *arguments: Any) -> None:
        due_ms = -((self.now_ms() + delay_ms) // -MOMENT_MS) * MOMENT_MS
        event = (due_ms, next(self._order), what, arguments)
        heappush(self._events, event)
        if self._events[0] is event:
            self._sooner.set()

    async def run(self) -> None:
        while True:
            self._sooner = trio.Event()
            early_ms = self._events[0][0] - self.now_ms() if self._events else math.inf
            if early_ms > 0:
                with trio.move_on_after(early_ms / 1_000):
                    await self._sooner.wait()
            else:
                _, _, what, arguments = heappop(self._events)
                what(*arguments)

    # -- the coordinator ---------------------------------------------------------------------------------------------

    def partition_of(self, topic: str, index: int) -> SimPartition:
        return self.partition

    async def run_coordinator(self, lifetime_ms: int) -> None:
        """One life. What was not committed is lost in part or all at its end."""
        self.life += 1
        self.partition.leader_epoch += 1
        self.partition.high_watermark = self.partition.log.log_end_offset
        replicas = Replicas(self.partition)
        coordinator = GroupCoordinator(
            replicas, self.cluster, self.config, random.Random(self.random.random()), self.now_ms
        )
        coordinator.after_round = partial(self._after_moment, coordinator)
        coordinator.apply(self.cluster.image)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(coordinator.run)
            self.coordinator = coordinator
            await trio.sleep(lifetime_ms / 1_000)
            self.coordinator = None
            nursery.cancel_scope.cancel()
        log = self.partition.log
        log.truncate(self.random.randint(self.partition.high_watermark, log.log_end_offset))
        for member in self.members:
            member.is_disconnected()

    def _after_moment(self, coordinator: GroupCoordinator, finish: Callable[[], None]) -> bool:
        """All that happens in one moment is one round of a poller."""

        def finish_if_up() -> None:
            if self.coordinator is coordinator:
                finish()

        self.after(0, finish_if_up)
        return True

    def note(self, who: str, what: str) -> None:
        self.trace.append((self.now_ms(), who, what))


@dataclass
class Replicas:
    of: SimPartition

    def partition(self, topic: str, index: int) -> Any:
        return self.of


class Member:
    """One consumer. `identity` is what owns partitions: a static member that comes back is the same one."""

    def __init__(self, world: World, name: str, instance_id: str | None) -> None:
        self.world = world
        self.name = name
        self.instance_id = instance_id
        self.member_id = ""
        self.generation_id = -1
        self.protocol_name: str | None = None
        self.led: list[str] = []
        self.owned: tuple[int, ...] = ()
        self.positions: dict[int, int] = {}
        self.next: Callable[[], None] = self.join
        self.is_alive = True
        self._asked = 0
        """Numbers its requests: an answer to another than the last is nobody's."""
        world.members.append(self)
        world.after(world.random.randint(0, 2_000), self.wake, 0)

    @property
    def identity(self) -> str:
        return self.instance_id or self.member_id

    @property
    def is_stable(self) -> bool:
        return self.next == self.heartbeat

    # -- asking ------------------------------------------------------------------------------------------------------

    def wake(self, asked: int) -> None:
        if self.is_alive and asked == self._asked:
            self.next()

    def sleep(self, delay_ms: int) -> None:
        self.world.after(delay_ms, self.wake, self._asked)

    def ask(self, message: Any, version: int, then: Callable[[Any], None]) -> None:
        self._asked += 1
        number = self._asked

        def answered(response: Any) -> None:
            if self.is_alive and number == self._asked:
                then(response)

        coordinator = self.world.coordinator
        if coordinator is None:
            self.sleep(RETRY_MS)
            return
        answer = coordinator.tell(GROUP, message, Asking(self.name, "127.0.0.1", version))
        if isinstance(answer, Pending):
            # Its answer arrives inside of another member's request: what follows from it comes after that.
            answer.deliver_to(lambda response: self.world.after(1, answered, response))
        else:
            answered(answer)

    def is_disconnected(self) -> None:
        self._asked += 1
        if self.is_alive:
            self.sleep(self.world.random.randint(1, RETRY_MS))

    # -- what it does ------------------------------------------------------------------------------------------------

    def join(self) -> None:
        self.next = self.join
        protocols = [JoinGroupRequestProtocol("range", b"\0\0\0\1\0\1t\xff\xff\xff\xff")]
        message = JoinGroupRequest(
            GROUP, SESSION_MS, REBALANCE_MS, self.member_id, self.instance_id, "consumer", protocols
        )
        self.ask(message, 9, self.is_joined)

    def is_joined(self, answer: Any) -> None:
        error = answer.error_code
        if error == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = answer.member_id
            self.join()
        elif error:
            self.starts_over(error)
        else:
            self.member_id, self.generation_id = answer.member_id, answer.generation_id
            self.protocol_name = answer.protocol_name
            self.led = [] if answer.skip_assignment else [each.member_id for each in answer.members]
            self.next = self.sync
            self.sleep(self.world.random.randint(1, 50))

    def sync(self) -> None:
        stride = len(self.led)
        assignments = [
            SyncGroupRequestAssignment(
                member_id, b"".join(each.to_bytes(2, "big") for each in range(index, self.world.partitions, stride))
            )
            for index, member_id in enumerate(self.led)
        ]
        message = SyncGroupRequest(
            GROUP, self.generation_id, self.member_id, self.instance_id, "consumer", self.protocol_name, assignments
        )
        self.ask(message, 5, self.is_assigned)

    def is_assigned(self, answer: Any) -> None:
        if answer.error_code:
            self.starts_over(answer.error_code)
            return
        data = bytes(answer.assignment)
        self.owned = tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
        for partition in self.owned:
            owner = self.world.owners.setdefault((self.generation_id, partition), self.identity)
            assert owner == self.identity, f"{partition} in generation {self.generation_id} has two owners"
        self.fetch()

    def fetch(self) -> None:
        self.next = self.fetch
        topics = [OffsetFetchRequestTopic("t", list(self.owned))]
        self.ask(OffsetFetchRequest(GROUP, topics), 5, self.knows_positions)

    def knows_positions(self, answer: Any) -> None:
        if answer.error_code:
            self.sleep(RETRY_MS)
            return
        self.positions = {each.partition_index: each.committed_offset for each in answer.topics[0].partitions}
        for partition, offset in self.positions.items():
            assert offset >= self.world.acknowledged.get(partition, -1), f"what was committed of {partition} is gone"
        self.next = self.heartbeat
        self.sleep(self.world.random.randint(1, HEARTBEAT_MS))

    def heartbeat(self) -> None:
        message = HeartbeatRequest(GROUP, self.generation_id, self.member_id, self.instance_id)
        self.ask(message, 4, self.has_heartbeat)

    def has_heartbeat(self, answer: Any) -> None:
        if answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS and self.world.random.random() < 0.5:
            self.commit(then=self.join)
        elif answer.error_code:
            self.starts_over(answer.error_code)
        elif self.owned and self.world.random.random() < 0.3:
            self.commit(then=lambda: self.sleep(HEARTBEAT_MS))
        else:
            self.sleep(HEARTBEAT_MS)

    def commit(self, then: Callable[[], None]) -> None:
        self.positions = {partition: offset + 1 for partition, offset in self.positions.items()}
        partitions = [OffsetCommitRequestPartition(index, offset) for index, offset in self.positions.items()]
        topics = [OffsetCommitRequestTopic("t", partitions=partitions)]
        message = OffsetCommitRequest(GROUP, self.generation_id, self.member_id, self.instance_id, topics=topics)

        def is_committed(answer: Any) -> None:
            for each in answer.topics[0].partitions if answer.topics else ():
                if each.error_code == ErrorCode.NONE:
                    offset = self.positions[each.partition_index]
                    before = self.world.acknowledged.get(each.partition_index, -1)
                    assert offset > before, f"{each.partition_index} goes back from {before} to {offset}"
                    self.world.acknowledged[each.partition_index] = offset
            then()

        self.ask(message, 8, is_committed)

    def starts_over(self, error: ErrorCode) -> None:
        self.world.note(self.name, ErrorCode(error).name)
        if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.member_id = ""
        self.next = self.join
        self.sleep(self.world.random.randint(1, RETRY_MS))

    # -- how it ends -------------------------------------------------------------------------------------------------

    def dies(self) -> None:
        """It falls silent: only its session tells."""
        self.is_alive = False
        self.world.members.remove(self)

    def leaves(self) -> None:
        coordinator = self.world.coordinator
        if coordinator is not None:
            identity = MemberIdentity(self.member_id, self.instance_id, "going home")
            message = LeaveGroupRequest(GROUP, members=[identity])
            coordinator.tell(GROUP, message, Asking(self.name, "127.0.0.1", 5))
        self.dies()

    def is_restarted(self) -> None:
        """The process is a new one: a static member comes back as itself, another as a stranger."""
        self.dies()
        Member(self.world, self.name, self.instance_id)
