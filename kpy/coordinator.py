"""The group coordinator's shell: drives the pure shards of kpy/group with requests, time and the log.

Theory of operation. A group lives in the partition of __consumer_offsets that its id hashes to, and the leader of
that partition coordinates it. For each partition this broker leads there is a `Led`: first it is loaded (its log is
replayed into a `GroupShard`, in slices, so that other clients are served meanwhile), then it answers. An event is
carried out in one fixed order: the machine judges it, its records are appended, they are replayed into the machine,
and once they are committed the replies leave. If the append fails nothing was replayed, and the askers are refused.

All of this is synchronous except the wait for other replicas and the wait of a parked join or sync: those are
`Pending` answers, completed later by another request or by time. A client that goes away abandons its answer and
nothing else: its member stays until its session is over. One task sleeps until the earliest deadline of all shards.

A partition nobody uses costs one small object: its machine is made by the first request that needs it.
"""

import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from kpy.errors import ApiError, ErrorCode, WireError
from kpy.group.answers import append_refusal, refusal
from kpy.group.events import Effects, Event, GroupRecord, Reply, Request, Tick, TopicsDeleted
from kpy.group.offsets import NO_PRODUCER_ID
from kpy.group.shard import GroupShard
from kpy.group.turn import GroupConfig
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.pending import Pending
from kpy.records.batch import HEADER_SIZE, NewRecord, build_batch, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL, Partition
from kpy.storage.producer_state import parse_marker
from kpy.wire.list_groups import ListedGroup

log = logging.getLogger("kpy.groups")

OFFSETS_TOPIC = "__consumer_offsets"
RECORDS_A_SLICE = 200
"""How many records are replayed before other tasks get their turn."""
RECORD_OVERHEAD_BYTES = 32
"""More than what one record takes in a batch besides its key and its value."""


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """The broker keys that the shell obeys; `groups` are those of the machines."""

    groups: GroupConfig = field(default_factory=GroupConfig)
    offsets_topic_num_partitions: int = 50
    offsets_topic_replication_factor: int = 3
    offsets_topic_segment_bytes: int = 100 * 1024 * 1024
    offsets_topic_compression_codec: int = 0
    offsets_commit_timeout_ms: int = 5_000


class Asker(Protocol):
    """Who asks: what a machine is told of a client."""

    client_id: str
    host: str
    version: int


class Call:
    """One request on its way through a machine: the token its reply comes back with."""

    __slots__ = ("message", "pending", "response", "version")

    def __init__(self, message: Any, version: int) -> None:
        self.message = message
        self.version = version
        self.response: Any = None
        self.pending: Pending[Any] | None = None

    def answer(self, response: Any) -> None:
        if self.pending is None:
            self.response = response
        else:
            self.pending.complete(response)


@dataclass(slots=True)
class Uncommitted:
    """Replies that wait until the records up to `last_offset` are committed, or until their time is over."""

    last_offset: int
    replies: list[Reply]
    deadline_ms: int


@dataclass(slots=True, eq=False)
class Led:
    """One partition of __consumer_offsets that this broker leads."""

    partition: Partition
    leader_epoch: int
    is_loaded: bool
    machine: GroupShard | None = None
    """None as long as the partition is empty and nobody has asked for a group of it."""
    uncommitted: deque[Uncommitted] = field(default_factory=deque["Uncommitted"])
    """In the order of their offsets, and so of their deadlines too."""


class Replicas(Protocol):
    """What the coordinator needs of the ReplicaManager."""

    def partition(self, topic: str, index: int) -> Partition: ...


class Topics(Protocol):
    """What the coordinator needs of the Cluster."""

    @property
    def image(self) -> MetadataImage: ...
    async def create_internal_topic(
        self, name: str, num_partitions: int, replication_factor: int, configs: Mapping[str, str]
    ) -> TopicImage: ...


class GroupCoordinator:
    """All groups that this broker coordinates. `apply` follows the metadata; `run` loads shards and keeps time."""

    def __init__(
        self,
        replicas: Replicas,
        cluster: Topics,
        config: CoordinatorConfig,
        rng: random.Random,
        now_ms: Callable[[], int],
    ) -> None:
        self._replicas = replicas
        self._cluster = cluster
        self._config = config
        self._rng = rng
        self._now_ms = now_ms
        self._codec = Codec(config.offsets_topic_compression_codec)
        self._topics: Mapping[str, TopicImage] = {}
        self._topic: TopicImage | None = None
        self._led: dict[int, Led] = {}
        self._to_load: deque[int] = deque()
        self._work = trio.Event()
        self._wakes_at_ms: float = math.inf

    # -- requests ----------------------------------------------------------------------------------------------------

    def tell(self, group_id: str, message: Any, client: Asker) -> Any:
        """Hand a group's request to its machine: the response, or a Pending of it when it must wait.

        A request that belongs elsewhere or comes too early is answered NOT_COORDINATOR or COORDINATOR_LOAD_IN_PROGRESS.
        """
        version = client.version
        led = self._led.get(self.partition_for(group_id))
        if led is None:
            return refusal(message, version, ErrorCode.NOT_COORDINATOR)
        if not led.is_loaded:
            return refusal(message, version, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        call = Call(message, version)
        # Java's way to print an address is part of what tools show as a member's host.
        self._handle(led, Request(message, version, client.client_id, f"/{client.host}", call))
        if call.response is None:
            call.pending = Pending()
            return call.pending
        return call.response

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

    def partition_for(self, group_id: str) -> int:
        """The partition of __consumer_offsets that a group lives in."""
        count = len(self._topic.partitions) if self._topic else self._config.offsets_topic_num_partitions
        return positive_java_hash(group_id) % count

    @property
    def topic(self) -> TopicImage | None:
        """The offsets topic, if it exists."""
        return self._topic

    async def ensure_topic(self) -> TopicImage:
        """The offsets topic; the first client that looks for a coordinator creates it. ApiError if that fails."""
        config = self._config
        return await self._cluster.create_internal_topic(
            OFFSETS_TOPIC,
            config.offsets_topic_num_partitions,
            # A small cluster gets as many replicas as it has brokers, where Apache Kafka would wait for more to come.
            min(config.offsets_topic_replication_factor, max(1, len(self._cluster.image.brokers))),
            {
                "cleanup.policy": "compact",
                "compression.type": "producer",
                "segment.bytes": str(config.offsets_topic_segment_bytes),
            },
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def _handle(self, led: Led, event: Event) -> None:
        now_ms = self._now_ms()
        if led.machine is None:
            led.machine = self._new_machine()
        self._carry_out(led, led.machine, led.machine.handle(event, now_ms), now_ms)

    def _carry_out(self, led: Led, machine: GroupShard, effects: Effects, now_ms: int) -> None:
        """Append, replay, wait for the commit, reply."""
        waits_for = led.uncommitted[-1].last_offset if effects.reads_offsets and led.uncommitted else -1
        if effects.records:
            try:
                waits_for = self._append(led.partition, machine, effects.records, now_ms)
            except ApiError as error:
                self._refuse_unwritten(led, effects, error)
                return
        if waits_for >= led.partition.high_watermark:
            deadline_ms = now_ms + self._config.offsets_commit_timeout_ms
            led.uncommitted.append(Uncommitted(waits_for, effects.replies, deadline_ms))
        else:
            for token, response in effects.replies:
                _call(token).answer(response)
        self._wake_if_due(led)

    def _append(self, partition: Partition, machine: GroupShard, records: list[GroupRecord], now_ms: int) -> int:
        """Write the records and make them count; the last one's offset. Raises ApiError, and stops, where one fails."""
        last_offset = -1
        for batch_of in in_batches(records, partition.log.config.max_message_bytes):
            data = build_batch((NewRecord(now_ms, key, value) for key, value in batch_of), codec=self._codec)
            batch = ValidBatch(read_header(data), memoryview(data), -1)
            last_offset = partition.append(batch, ACKS_ALL, now_ms).last_offset
            for key, value in batch_of:
                machine.replay(key, value)
        return last_offset

    def _refuse_unwritten(self, led: Led, effects: Effects, error: ApiError) -> None:
        log.warning("%s-%d: cannot write group metadata: %s", OFFSETS_TOPIC, led.partition.partition, error)
        for token, _ in effects.replies:
            call = _call(token)
            call.answer(append_refusal(call.message, call.version, error.code))

    def committed(self, index: int) -> None:
        """The high watermark of a partition has moved: replies that waited for it leave."""
        led = self._led.get(index)
        while led is not None and led.uncommitted and led.uncommitted[0].last_offset < led.partition.high_watermark:
            for token, response in led.uncommitted.popleft().replies:
                _call(token).answer(response)

    def _give_up_uncommitted(self, led: Led, now_ms: int) -> None:
        """Their records may still be committed one day, but the askers have waited long enough."""
        while led.uncommitted and led.uncommitted[0].deadline_ms <= now_ms:
            for token, _ in led.uncommitted.popleft().replies:
                call = _call(token)
                call.answer(refusal(call.message, call.version, ErrorCode.COORDINATOR_NOT_AVAILABLE))

    def _new_machine(self) -> GroupShard:
        return GroupShard(self._config.groups, self._rng, self._partition_exists)

    def _partition_exists(self, topic: str, partition: int) -> bool:
        found = self._cluster.image.topics.get(topic)
        return found is not None and 0 <= partition < len(found.partitions)

    # -- leadership --------------------------------------------------------------------------------------------------

    def apply(self, image: MetadataImage) -> None:
        """Take up the partitions that this broker leads by now, and let go of others. Called after the replicas'."""
        topic = image.topics.get(OFFSETS_TOPIC)
        if topic is not self._topic:
            self._topic = topic
            self._lead(topic)
        self._forget_deleted_topics(image)

    def _lead(self, topic: TopicImage | None) -> None:
        led_now: dict[int, Partition] = {}
        for each in topic.partitions if topic is not None else ():
            try:
                led_now[each.partition] = self._replicas.partition(OFFSETS_TOPIC, each.partition)
            except ApiError:
                continue
        for index, led in list(self._led.items()):
            partition = led_now.get(index)
            # After another epoch another broker may have led in between, and what it wrote is not in this machine.
            if partition is None or partition is not led.partition or partition.leader_epoch != led.leader_epoch:
                self._resign(index)
        for index, partition in led_now.items():
            if index not in self._led:
                self._elect(index, partition)

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

    def _elect(self, index: int, partition: Partition) -> None:
        is_empty = partition.log.log_end_offset == partition.log.log_start_offset
        self._led[index] = Led(partition, partition.leader_epoch, is_loaded=is_empty)
        if not is_empty:
            self._to_load.append(index)
            self._work.set()

    def _resign(self, index: int) -> None:
        """Another broker coordinates these groups from now on: everybody who waits here is sent there."""
        led = self._led.pop(index)
        tokens = [token for entry in led.uncommitted for token, _ in entry.replies]
        if led.machine is not None:
            tokens += [waiting.token for waiting in led.machine.waiting()]
        for token in tokens:
            call = _call(token)
            call.answer(refusal(call.message, call.version, ErrorCode.NOT_COORDINATOR))

    # -- background --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Load shards and keep their deadlines, until cancelled."""
        while True:
            # Made before anything is done, so that what comes up meanwhile is done next.
            self._work = trio.Event()
            while self._to_load:
                await self._load(self._to_load.popleft())
            for led in list(self._led.values()):
                if self._tick(led):
                    await trio.lowlevel.checkpoint()
            self._wakes_at_ms = min((_deadline_ms(led) for led in self._led.values()), default=math.inf)
            with trio.move_on_after(max(0, self._wakes_at_ms - self._now_ms()) / 1000):
                await self._work.wait()

    def _tick(self, led: Led) -> bool:
        now_ms = self._now_ms()
        if _deadline_ms(led) > now_ms:
            return False
        self._give_up_uncommitted(led, now_ms)
        if led.machine is not None:
            self._handle(led, Tick())
        return True

    def _wake_if_due(self, led: Led) -> None:
        if _deadline_ms(led) < self._wakes_at_ms:
            self._work.set()

    async def _load(self, index: int) -> None:
        """Replay one partition's log, in slices. A record that cannot be read is passed over, and said so."""
        led = self._led.get(index)
        if led is None or led.is_loaded:
            return
        machine = self._new_machine()
        records = 0
        try:
            for _ in replayed(led.partition, machine):
                records += 1
                if records % RECORDS_A_SLICE == 0:
                    await trio.lowlevel.checkpoint()
                    if self._led.get(index) is not led:
                        return
        except ApiError as error:
            log.error("%s-%d: cannot be loaded, its groups have no coordinator: %s", OFFSETS_TOPIC, index, error)
            self._resign(index)
            return
        led.machine = machine
        led.is_loaded = True
        log.info("%s-%d: loaded %d groups from %d records", OFFSETS_TOPIC, index, len(machine.groups), records)
        now_ms = self._now_ms()
        self._carry_out(led, machine, machine.loaded(now_ms), now_ms)


def replayed(partition: Partition, machine: GroupShard) -> Iterator[None]:
    """Replay a partition's log into a machine, one record a step. Raises ApiError for a log that cannot be read."""
    for header, batch in partition.log.read_batches(partition.log.log_start_offset, partition.log.log_end_offset):
        if header.is_control:
            marker = parse_marker(batch)
            if marker is not None:
                machine.replay_end_of_transaction(header.producer_id, committed=not marker.is_abort)
            yield
            continue
        producer_id = header.producer_id if header.is_transactional else NO_PRODUCER_ID
        for record in iter_records(batch):
            try:
                machine.replay(record.key or b"", record.value, producer_id)
            except WireError as error:
                where = f"{partition.topic}-{partition.partition}"
                log.error("%s: the record at offset %d is passed over: %s", where, record.offset, error)
            yield


def positive_java_hash(text: str) -> int:
    """Java's String.hashCode without its sign, by which Apache Kafka places groups (Utils.abs)."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    signed = value - 0x1_0000_0000 if value & 0x8000_0000 else value
    return 0 if signed == -0x8000_0000 else abs(signed)


def in_batches(records: list[GroupRecord], max_bytes: int) -> Iterator[list[GroupRecord]]:
    """Usually one batch. What is more than a batch may hold goes into several, in order."""
    batch: list[GroupRecord] = []
    size = HEADER_SIZE
    for record in records:
        key, value = record
        record_size = len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES
        if size + record_size > max_bytes:
            if record_size + HEADER_SIZE > max_bytes:
                raise ApiError(
                    ErrorCode.MESSAGE_TOO_LARGE, f"a group's record of {record_size} bytes is above {max_bytes}"
                )
            yield batch
            batch, size = [], HEADER_SIZE
        batch.append(record)
        size += record_size
    yield batch


def when_all(answers: Iterable[Any], combine: Callable[[list[Any]], Any]) -> Any:
    """Combine the answers to several groups' requests, as soon as the last of them is there."""
    collected = list(answers)
    missing = [index for index, answer in enumerate(collected) if isinstance(answer, Pending)]
    if not missing:
        return combine(collected)
    whole: Pending[Any] = Pending()
    left = len(missing)

    def fill(index: int, response: Any) -> None:
        nonlocal left
        collected[index] = response
        left -= 1
        if left == 0:
            whole.complete(combine(collected))

    for index in missing:
        pending: Pending[Any] = collected[index]
        pending.deliver_to(partial(fill, index))
    return whole


def _call(token: object) -> Call:
    assert isinstance(token, Call)
    return token


def _deadline_ms(led: Led) -> float:
    """When something of this partition is due; infinite when nothing is."""
    deadline_ms = led.machine.next_deadline_ms() if led.machine is not None else None
    due_ms = math.inf if deadline_ms is None else deadline_ms
    return min(due_ms, led.uncommitted[0].deadline_ms) if led.uncommitted else due_ms
