"""The coordinators' shell: drives the pure machines of kpy/group and kpy/txn with requests, time and the log.

Theory of operation. What a coordinator keeps (a group, a transactional id) lives in the partition of its internal topic
that its name hashes to, and the leader of that partition coordinates it. For each partition this broker leads there is
a `Led`: first it is loaded (its log is replayed into a machine, in slices, so that other clients are served meanwhile),
then it answers. An event is carried out in one fixed order: the machine judges it, its records are appended, they are
replayed into the machine, and once they are committed the machine's actions are carried out and the replies leave. If
the append fails nothing was replayed, and the askers are refused.

All of this is synchronous except the wait for other replicas and the wait of what a machine has parked: those are
`Pending` answers, completed later by another request or by time. A client that goes away abandons its answer and
nothing else: its member stays until its session is over. One task sleeps until the earliest deadline of all shards.

A partition nobody uses costs one small object: its machine is made by the first request that needs it.

`GroupCoordinator` (kpy/group_coordinator.py) and `TransactionCoordinator` (kpy/transaction_coordinator.py) say what is
theirs: the topic, the machine, and how a request is refused. Kafka class CoordinatorRuntime.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast

import trio

from kpy.errors import ApiError, ErrorCode, WireError
from kpy.java_hash import string_hash, without_sign
from kpy.machine import NO_PRODUCER_ID, Effects, Machine, Reply, Request, StateRecord, Tick, size_in_batch
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.pending import Pending
from kpy.records.batch import HEADER_SIZE, NewRecord, Record, build_batch, check_crc, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL, Partition
from kpy.storage.producer_state import parse_marker

log = logging.getLogger("kpy.coordinator")

M = TypeVar("M", bound=Machine)

RECORDS_A_SLICE = 200
"""How many records are replayed before other tasks get their turn."""


@dataclass(frozen=True, slots=True)
class StateTopic:
    """The internal topic that a coordinator keeps its state in, as it is created, and how it is written to."""

    name: str
    num_partitions: int
    replication_factor: int
    configs: Mapping[str, str]
    codec: Codec = Codec.NONE
    commit_timeout_ms: int = 5_000
    """How long an asker waits for the other replicas."""


class Asker(Protocol):
    """Who asks: what a machine is told of a client."""

    client_id: str
    host: str
    version: int


@dataclass(slots=True)
class Asking:
    """An asker that is no connection: this broker itself, or a client with another version of the request."""

    client_id: str = ""
    host: str = ""
    version: int = 0


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


def request_of(client: Asker, call: Call) -> Request:
    """Java's way to print an address is part of what tools show as a member's host."""
    return Request(call.message, call.version, client.client_id, f"/{client.host}", call)


@dataclass(slots=True)
class Uncommitted:
    """What is to be done when the records up to `last_offset` are committed. Only replies do not wait longer than
    until the deadline.
    """

    last_offset: int
    replies: list[Reply]
    actions: list[Any]
    deadline_ms: int


class Led(Generic[M]):
    """One partition of a coordinator's topic that this broker leads."""

    __slots__ = ("is_loaded", "leader_epoch", "machine", "partition", "uncommitted")

    def __init__(self, partition: Partition, *, is_loaded: bool) -> None:
        self.partition = partition
        self.leader_epoch = partition.leader_epoch
        self.is_loaded = is_loaded
        self.machine: M | None = None  # As long as the partition is empty and nobody has asked for anything of it.
        self.uncommitted: deque[Uncommitted] = deque()  # Their offsets rise, and so do their deadlines.


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


class Coordinator(ABC, Generic[M]):
    """All that this broker coordinates of one kind. `apply` follows the metadata; `run` loads and keeps time."""

    def __init__(self, topic: StateTopic, replicas: Replicas, cluster: Topics, now_ms: Callable[[], int]) -> None:
        self._state_topic = topic
        self._replicas = replicas
        self._cluster = cluster
        self._now_ms = now_ms
        self._topic: TopicImage | None = None
        self._led: dict[int, Led[M]] = {}
        self._to_load: deque[int] = deque()
        self._work = trio.Event()
        self._wakes_at_ms: float = math.inf

    @abstractmethod
    def _new_machine(self) -> M: ...

    @abstractmethod
    def _refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        """The answer to a request that no machine gets to see."""

    @abstractmethod
    def _append_refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        """The answer to a request whose records could not be written because of `error`."""

    def _act(self, led: Led[M], action: Any) -> None:
        """Carry out an action of a machine; its records are committed."""

    # -- requests ----------------------------------------------------------------------------------------------------

    def tell(self, key: str, message: Any, client: Asker) -> Any:
        """Hand a request about `key` to its machine: the response, or a Pending of it when it must wait.

        A request that belongs elsewhere or comes too early is answered NOT_COORDINATOR or COORDINATOR_LOAD_IN_PROGRESS.
        """
        version = client.version
        led = self._led.get(self.partition_for(key))
        if led is None:
            return self._refusal(message, version, ErrorCode.NOT_COORDINATOR)
        if not led.is_loaded:
            return self._refusal(message, version, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        call = Call(message, version)
        self._handle(led, request_of(client, call))
        if call.response is None:
            call.pending = Pending()
            return call.pending
        return call.response

    def partition_for(self, key: str) -> int:
        """The partition of the coordinator's topic that a group id or a transactional id lives in."""
        count = len(self._topic.partitions) if self._topic else self._state_topic.num_partitions
        return without_sign(string_hash(key)) % count

    @property
    def topic(self) -> TopicImage | None:
        """The coordinator's topic, if it exists."""
        return self._topic

    async def ensure_topic(self) -> TopicImage:
        """The coordinator's topic; the first client that looks for it creates it. ApiError if that fails."""
        topic = self._state_topic
        return await self._cluster.create_internal_topic(
            topic.name, topic.num_partitions, topic.replication_factor, topic.configs
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def _handle(self, led: Led[M], event: Any) -> None:
        now_ms = self._now_ms()
        if led.machine is None:
            led.machine = self._new_machine()
        self._carry_out(led, led.machine, led.machine.handle(event, now_ms), now_ms)

    def _carry_out(self, led: Led[M], machine: M, effects: Effects, now_ms: int) -> None:
        """Append, replay, wait for the commit, act, reply."""
        for note in effects.notes:
            log.info("%s", note)
        waits_for = led.uncommitted[-1].last_offset if effects.reads_state and led.uncommitted else -1
        if effects.records:
            try:
                waits_for = self._append(led.partition, machine, effects, now_ms)
            except ApiError as error:
                self._refuse_unwritten(led, effects, error)
                return
        if waits_for >= led.partition.high_watermark:
            deadline_ms = now_ms + self._state_topic.commit_timeout_ms
            led.uncommitted.append(Uncommitted(waits_for, effects.replies, effects.actions, deadline_ms))
        else:
            self._finish(led, effects.replies, effects.actions)
        self._wake_if_due(led)

    def _append(self, partition: Partition, machine: M, effects: Effects, now_ms: int) -> int:
        """Write the records and make them count; the last one's offset. Raises ApiError, and stops, where one fails."""
        last_offset = -1
        for batch_of in in_batches(effects.records, partition.log.config.max_message_bytes):
            data = build_batch(
                [NewRecord(now_ms, key, value) for key, value in batch_of],
                codec=self._state_topic.codec,
                producer_id=effects.producer_id,
                producer_epoch=effects.producer_epoch,
                transactional=effects.producer_id != NO_PRODUCER_ID,
            )
            batch = ValidBatch(read_header(data), memoryview(data), -1)
            last_offset = partition.append(batch, ACKS_ALL, now_ms).last_offset
            for key, value in batch_of:
                machine.replay(key, value, effects.producer_id)
        return last_offset

    def _finish(self, led: Led[M], replies: Iterable[Reply], actions: Iterable[Any]) -> None:
        for action in actions:
            self._act(led, action)
        for token, response in replies:
            _call(token).answer(response)

    def _refuse_unwritten(self, led: Led[M], effects: Effects, error: ApiError) -> None:
        log.warning("%s-%d: cannot write: %s", self._state_topic.name, led.partition.partition, error)
        for token, response in effects.replies:
            call = _call(token)
            call.answer(
                response if effects.replies_stand else self._append_refusal(call.message, call.version, error.code)
            )

    def committed_in(self, topic: str, index: int) -> None:
        """The high watermark of any partition of this broker has moved later than with its append."""
        if topic == self._state_topic.name:
            self.committed(index)

    def committed(self, index: int) -> None:
        """The high watermark of a partition has moved: what waited for it is done."""
        led = self._led.get(index)
        while led is not None and led.uncommitted and led.uncommitted[0].last_offset < led.partition.high_watermark:
            entry = led.uncommitted.popleft()
            self._finish(led, entry.replies, entry.actions)

    def _give_up_uncommitted(self, led: Led[M], now_ms: int) -> None:
        """Their records may still be committed one day, but the askers have waited long enough."""
        for entry in tuple(led.uncommitted):  # An answer may let in another question, and that add an entry.
            if entry.deadline_ms > now_ms:
                break
            replies, entry.replies = entry.replies, []
            for token, _ in replies:
                call = _call(token)
                call.answer(self._refusal(call.message, call.version, ErrorCode.COORDINATOR_NOT_AVAILABLE))

    # -- leadership --------------------------------------------------------------------------------------------------

    def apply(self, image: MetadataImage) -> None:
        """Take up the partitions that this broker leads by now, and let go of others. Called after the replicas'."""
        topic = image.topics.get(self._state_topic.name)
        if topic is not self._topic:
            self._topic = topic
            self._lead(topic)

    def leaders_changed(self) -> None:
        """A controller has given partitions to this broker, or taken some away."""
        self._lead(self._topic)

    def _lead(self, topic: TopicImage | None) -> None:
        led_now: dict[int, Partition] = {}
        for each in topic.partitions if topic is not None else ():
            try:
                led_now[each.partition] = self._replicas.partition(self._state_topic.name, each.partition)
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

    def _elect(self, index: int, partition: Partition) -> None:
        is_empty = partition.log.log_end_offset == partition.log.log_start_offset
        self._led[index] = Led(partition, is_loaded=is_empty)
        if not is_empty:
            self._to_load.append(index)
            self._work.set()

    def _resign(self, index: int) -> None:
        """Another broker coordinates this from now on: everybody who waits here is sent there."""
        led = self._led.pop(index)
        tokens = [token for entry in led.uncommitted for token, _ in entry.replies]
        if led.machine is not None:
            tokens += [waiting.token for waiting in led.machine.waiting()]
        for token in tokens:
            call = _call(token)
            call.answer(self._refusal(call.message, call.version, ErrorCode.NOT_COORDINATOR))

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

    def _tick(self, led: Led[M]) -> bool:
        now_ms = self._now_ms()
        if _deadline_ms(led) > now_ms:
            return False
        self._give_up_uncommitted(led, now_ms)
        if led.machine is not None:
            self._handle(led, Tick())
        return True

    def _wake_if_due(self, led: Led[M]) -> None:
        if _deadline_ms(led) < self._wakes_at_ms:
            self._work.set()

    async def _load(self, index: int) -> None:
        """Replay one partition's log, in slices. A record that cannot be read is passed over, and said so."""
        led = self._led.get(index)
        if led is None or led.is_loaded:
            return
        machine = self._new_machine()
        records = 0
        end_offset = led.partition.log.log_end_offset
        try:
            for _ in replayed(led.partition, machine):
                records += 1
                if records % RECORDS_A_SLICE == 0:
                    await trio.lowlevel.checkpoint()
                    if self._led.get(index) is not led:
                        return
        except ApiError as error:
            log.error(
                "%s-%d: cannot be loaded, what it holds has no coordinator: %s", led.partition.topic, index, error
            )
            self._resign(index)
            return
        led.machine = machine
        led.is_loaded = True
        log.info("%s-%d: loaded %d from %d records", self._state_topic.name, index, len(machine), records)
        now_ms = self._now_ms()
        effects = machine.loaded(now_ms)
        if effects.actions and end_offset > led.partition.high_watermark:
            # What a leader inherits is committed only when its followers have it, and what was done cannot be undone.
            led.uncommitted.append(Uncommitted(end_offset - 1, [], [], now_ms))
            effects.reads_state = True
        self._carry_out(led, machine, effects, now_ms)


def replayed(partition: Partition, machine: Machine) -> Iterator[None]:
    """Replay a partition's log into a machine, one record a step. Raises ApiError for a log that cannot be read.

    A batch or a record that is damaged is named and passed over: one group's loss must not be that of all.
    """
    where = f"{partition.topic}-{partition.partition}"
    for header, batch in partition.log.read_batches(partition.log.log_start_offset, partition.log.log_end_offset):
        if not check_crc(batch):
            log.error("%s: the batch at offset %d is damaged and passed over", where, header.base_offset)
            continue
        if header.is_control:
            marker = parse_marker(batch)
            if marker is not None:
                machine.replay_end_of_transaction(header.producer_id, committed=not marker.is_abort)
            yield
            continue
        producer_id = header.producer_id if header.is_transactional else NO_PRODUCER_ID
        for record in readable_records(batch, where):
            try:
                machine.replay(record.key or b"", record.value, producer_id)
            except WireError as error:
                log.error("%s: the record at offset %d is passed over: %s", where, record.offset, error)
            yield


def readable_records(batch: memoryview, where: str) -> Iterator[Record]:
    """The records of a batch up to the first that is malformed, whose rest is named and passed over."""
    next_offset = read_header(batch).base_offset
    try:
        for record in iter_records(batch):
            yield record
            next_offset = record.offset + 1
    except ApiError as error:
        log.error("%s: the rest of its batch from offset %d on is passed over: %s", where, next_offset, error)


def in_batches(records: list[StateRecord], max_bytes: int) -> Iterator[list[StateRecord]]:
    """Usually one batch. What is more than a batch may hold goes into several, in order."""
    batch: list[StateRecord] = []
    size = HEADER_SIZE
    for record in records:
        record_size = size_in_batch(record)
        if size + record_size > max_bytes:
            if record_size + HEADER_SIZE > max_bytes:
                raise ApiError(
                    ErrorCode.MESSAGE_TOO_LARGE, f"a coordinator's record of {record_size} bytes is above {max_bytes}"
                )
            yield batch
            batch, size = [], HEADER_SIZE
        batch.append(record)
        size += record_size
    yield batch


def when_all(answers: Iterable[Any], combine: Callable[[list[Any]], Any]) -> Any:
    """Combine the answers to several requests, as soon as the last of them is there."""
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


def and_then(answer: Any, go_on: Callable[[Any], Any]) -> Any:
    """Hand an answer to `go_on`; either answer may come later."""
    if not isinstance(answer, Pending):
        return go_on(answer)
    whole: Pending[Any] = Pending()

    def deliver(response: Any) -> None:
        second = go_on(response)
        if isinstance(second, Pending):
            cast("Pending[Any]", second).deliver_to(whole.complete)
        else:
            whole.complete(second)

    cast("Pending[Any]", answer).deliver_to(deliver)
    return whole


def _call(token: object) -> Call:
    assert isinstance(token, Call)
    return token


def _deadline_ms(led: Led[Any]) -> float:
    """When something of this partition is due; infinite when nothing is."""
    deadline_ms = led.machine.next_deadline_ms() if led.machine is not None else None
    due_ms = math.inf if deadline_ms is None else deadline_ms
    if not led.uncommitted:
        return due_ms
    return min(due_ms, next((entry.deadline_ms for entry in led.uncommitted if entry.replies), math.inf))
