"""Three brokers' replica layers, a network, a controller and clients in one trio run under a mock clock, from one seed.

A broker has real logs on a disk in memory, the real handlers, fetchers and AlterPartition sender. Messages go as
objects with a delay drawn at random; a link that is cut swallows them. A broker is killed by cancelling its tasks: its
disk stays as it was, as after kill -9. The controller keeps partition states as Apache Kafka's does in ZooKeeper:
elections from the live in-sync replicas only, each with a higher epoch, and AlterPartition with its checks.

`Simulation.run` lets faults happen for a while, heals everything, waits until the replicas agree, and raises Violation
when a promise was broken.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import trio
from trio.testing import MockClock

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch import fetch
from kpy.api.fetch_sessions import FetchSessions
from kpy.api.leader_and_isr import leader_and_isr
from kpy.api.list_offsets import list_offsets
from kpy.api.produce import produce
from kpy.api.update_metadata import update_metadata
from kpy.config import BrokerConfig
from kpy.errors import ErrorCode
from kpy.metadata.image import MetadataImage
from kpy.metadata.updates import updated
from kpy.peers import PeerError
from kpy.pending import Pending
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records
from kpy.replica.alter_partition import AlterPartitionSender
from kpy.replica.fetchers import Fetchers
from kpy.replica.follower import Limits
from kpy.replica.manager import Cooperation, ReplicaManager
from kpy.replica.membership import Membership
from kpy.replica.throttles import Throttles
from kpy.storage.log_dirs import LogDirs
from kpy.topic_config import topic_config
from kpy.wire.alter_partition import AlterPartitionResponse, ResponsePartitionData, ResponseTopicData
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from kpy.wire.leader_and_isr import LeaderAndIsrPartitionState, LeaderAndIsrRequest, LeaderAndIsrTopicState
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from tests.fault.storage_fs import MemoryFs

BROKERS = (1, 2, 3)
CONTROLLER = 0
TOPIC, TOPIC_ID, PARTITIONS = "t", b"simulated topic!", 2
START_MS = 1_700_000_000_000
SESSION_S = 0.4
LAG_MS = 800
LIMITS = Limits(max_wait_ms=100, backoff_ms=60)
ASK_TIMEOUT_S = 0.5
HANDLERS: dict[int, tuple[Callable[..., Any], int]] = {
    0: (produce, 9),
    1: (fetch, 17),
    2: (list_offsets, 9),
    4: (leader_and_isr, 7),
    6: (update_metadata, 8),
}
PRODUCE, FETCH, LEADER_AND_ISR, UPDATE_METADATA = 0, 1, 4, 6


class Violation(AssertionError):  # noqa: N818 - it is what it is
    """A promise was broken."""


@dataclass(eq=False)
class Node:
    """One life of a broker."""

    broker: Broker
    log_dirs: LogDirs
    membership: Membership
    scope: trio.CancelScope
    is_registered: bool = False
    high_watermarks: dict[int, int] = field(default_factory=dict)


@dataclass
class State:
    """A partition as ZooKeeper has it."""

    leader: int
    epoch: int
    isr: tuple[int, ...]
    version: int = 0


class Simulation:
    def __init__(self, seed: int, throttled_rate: int | None = None) -> None:
        """With a `throttled_rate` all replicas are throttled to these bytes a second, as leaders and as followers."""
        self.throttled_rate = throttled_rate
        self.random = random.Random(seed)
        self.min_isr = self.random.choice((1, 1, 2))
        self.disks = {broker_id: MemoryFs() for broker_id in BROKERS}
        self.nodes: dict[int, Node] = {}
        self.cut: set[frozenset[int]] = set()
        self.controller = Controller(self)
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.seen: dict[tuple[int, int], bytes] = {}
        self.sent = 0
        self.is_calm = False
        self.trace: list[str] = []
        self.nursery: trio.Nursery

    # -- time and network --------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        core: Any = trio._core._run  # type: ignore[attr-defined]
        core._ALLOW_DETERMINISTIC_SCHEDULING = True
        core._r.seed(self.random.random())
        trio.run(self._main, seconds, clock=MockClock(autojump_threshold=0))

    async def _main(self, seconds: float) -> None:
        with trio.fail_after(seconds + 300):
            async with trio.open_nursery() as self.nursery:
                for broker_id in BROKERS:
                    await self.start(broker_id)
                for number in range(2):
                    self.nursery.start_soon(self._produce_for_ever, number)
                    self.nursery.start_soon(self._consume_for_ever)
                self.nursery.start_soon(self._watch_for_ever)
                with trio.move_on_after(seconds):
                    await self._make_trouble()
                await self._calm_down()
                self.nursery.cancel_scope.cancel()
        self._check()

    def note(self, what: str) -> None:
        self.trace.append(f"{trio.current_time():8.3f} {what}")

    async def pause(self, longest_s: float) -> None:
        await trio.sleep(self.random.random() * longest_s)

    def is_cut(self, one: int, other: int) -> bool:
        return frozenset((one, other)) in self.cut

    async def ask(self, source: int, target: int, key: int, request: Any, *, client_id: str = "") -> Any:
        """Sends a request to the handler of another broker. Raises PeerError, as a connection would."""
        await self.pause(0.004)
        node = self.nodes.get(target)
        if node is None or self.is_cut(source, target):
            await trio.sleep(0.02)
            raise PeerError("cannot be reached")
        handler, version = HANDLERS[key]
        client = Client("sim", "PLAINTEXT")
        client.client_id, client.version = client_id, version
        response = await self._answered(node, handler(request, client, node.broker))
        await self.pause(0.004)
        if response is None or self.nodes.get(target) is not node or self.is_cut(source, target):
            raise PeerError("no answer")
        return response

    async def _answered(self, node: Node, answer: Any) -> Any:
        if isinstance(answer, Pending):
            pending = cast("Pending[Any]", answer)
            come = trio.Event()
            answers: list[Any] = []

            def deliver(response: Any) -> None:
                answers.append(_with_bytes(response))
                come.set()

            pending.deliver_to(deliver)
            with trio.move_on_after(ASK_TIMEOUT_S):
                await come.wait()
            pending.abandon()
            return answers[0] if answers else None
        return _with_bytes(answer)

    # -- brokers -----------------------------------------------------------------------------------------------------

    async def start(self, broker_id: int) -> None:
        membership = Membership()
        config = BrokerConfig.of({"broker.id": str(broker_id), "min.insync.replicas": str(self.min_isr)})
        log_dirs = LogDirs.open(
            ["/data"],
            broker_id=broker_id,
            cluster_id="c",
            now_ms=now_ms(),
            config_for=lambda _: topic_config({}, config),
            rng=self.random,
            fs=self.disks[broker_id],
        )
        throttles = Throttles(broker_id)
        throttled: dict[str, str] = {}
        if self.throttled_rate is not None:
            throttles.limit(self.throttled_rate, self.throttled_rate)
            throttled = {f"{side}.replication.throttled.replicas": "*" for side in ("leader", "follower")}
        replicas = ReplicaManager(
            log_dirs, broker_id, lambda overrides: topic_config({**overrides, **throttled}, config), now_ms, _at_once
        )
        cluster = _KnownCluster(replicas)
        fetchers = Fetchers(
            broker_id,
            membership,
            lambda leader, client_id: _Peer(self, broker_id, leader, client_id),
            now_ms=now_ms,
            limits=LIMITS,
            throttles=throttles,
        )
        sender = AlterPartitionSender(
            broker_id, membership, lambda _, request, __: self.controller.ask(broker_id, request)
        )
        replicas.cooperate(Cooperation(membership, fetchers, sender, lambda _: {}, throttles, LAG_MS))
        replicas.apply(cluster.image)
        coordinator = SimpleNamespace(leaders_changed=lambda: None)
        broker = Broker(
            config,
            cast("Any", cluster),
            replicas,
            cast("Any", coordinator),
            cast("Any", coordinator),
            FetchSessions(100, self.random),
            now_ms,
            self.random,
            membership,
        )
        node = Node(broker, log_dirs, membership, trio.CancelScope())
        self.nodes[broker_id] = node
        self.nursery.start_soon(self._live, node)
        self.nursery.start_soon(self.controller.watch, broker_id, node)

    async def _live(self, node: Node) -> None:
        replicas = node.broker.replicas
        with node.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replicas.purgatory.run)
                for task in replicas.tasks():
                    nursery.start_soon(task)
                while True:
                    await trio.sleep(0.7)
                    node.log_dirs.checkpoint(now_ms())

    def kill(self, broker_id: int) -> None:
        """Its memory is gone, its disk is as the last write has left it."""
        node = self.nodes.pop(broker_id)
        node.scope.cancel()
        for held in node.log_dirs.logs.values():
            held.is_offline = True

    # -- trouble -----------------------------------------------------------------------------------------------------

    async def _make_trouble(self) -> None:
        kinds = (
            self._kill_one,
            self._start_one,
            self._start_one,
            self._cut_one,
            self._heal_one,
            self._heal_one,
            self._move_leader,
            self._move_leader,
            self._bounce_leader,
        )
        while True:
            await self.pause(0.5)
            await self.random.choice(kinds)()

    async def _kill_one(self) -> None:
        if self.nodes:
            broker_id = self.random.choice(sorted(self.nodes))
            self.note(f"kill {broker_id}")
            self.kill(broker_id)

    async def _start_one(self) -> None:
        down = [broker_id for broker_id in BROKERS if broker_id not in self.nodes]
        if down:
            broker_id = self.random.choice(down)
            self.note(f"start {broker_id}")
            await self.start(broker_id)

    async def _cut_one(self) -> None:
        link = frozenset(self.random.sample((CONTROLLER, *BROKERS), 2))
        self.note(f"cut {sorted(link)}")
        self.cut.add(link)

    async def _heal_one(self) -> None:
        if self.cut:
            link = self.random.choice(sorted(self.cut, key=sorted))
            self.note(f"heal {sorted(link)}")
            self.cut.discard(link)

    async def _move_leader(self) -> None:
        self.controller.move_leader(self.random.randrange(PARTITIONS))

    async def _bounce_leader(self) -> None:
        """The leader dies and is back before or after anybody notices: what makes logs diverge."""
        leader = self.controller.states[self.random.randrange(PARTITIONS)].leader
        if leader in self.nodes:
            self.note(f"bounce {leader}")
            self.kill(leader)
            await self.pause(2 * SESSION_S)
            if leader not in self.nodes:
                await self.start(leader)

    async def _calm_down(self) -> None:
        self.is_calm = True
        self.cut.clear()
        for broker_id in BROKERS:
            if broker_id not in self.nodes:
                await self.start(broker_id)
        self.note("calm")
        for _ in range(600):
            await trio.sleep(0.1)
            if self._agree():
                return
        raise Violation(f"the replicas do not agree a minute after the last fault: {self._disagreement()}")

    def _agree(self) -> bool:
        whole = all(sorted(state.isr) == list(BROKERS) for state in self.controller.states)
        return whole and all(
            len({self.stored(broker_id, index) for broker_id in BROKERS}) == 1 for index in range(PARTITIONS)
        )

    def _disagreement(self) -> str:
        ends = {
            broker_id: [held.log_end_offset for held in node.log_dirs.logs.values()]
            for broker_id, node in self.nodes.items()
        }
        return f"{self.controller.states}, log ends {ends}"

    # -- clients -----------------------------------------------------------------------------------------------------

    async def _produce_for_ever(self, number: int) -> None:
        target = self.random.choice(BROKERS)
        while not self.is_calm:
            await self.pause(0.06)
            index = self.random.randrange(PARTITIONS)
            value = b"%d" % self.sent
            self.sent += 1
            batch = build_batch([NewRecord(now_ms(), None, value)])
            data = PartitionProduceData(index, memoryview(batch))
            # Records of acks=1 are promised to nobody, and make logs diverge.
            acks = self.random.choice((-1, -1, 1))
            request = ProduceRequest(None, acks, 300, [TopicProduceData(TOPIC, partition_data=[data])])
            try:
                response = await self.ask(-1, target, PRODUCE, request)
            except PeerError:
                target = self.random.choice(BROKERS)
                continue
            answer = response.responses[0].partition_responses[0]
            if answer.error_code == ErrorCode.NONE:
                if acks == -1:
                    self.acknowledged[index, answer.base_offset] = value
            elif answer.error_code != ErrorCode.NOT_ENOUGH_REPLICAS:
                target = self.random.choice(BROKERS)

    async def _consume_for_ever(self) -> None:
        """Reads from leaders and followers alike, also what it has read already."""
        positions = dict.fromkeys(range(PARTITIONS), 0)
        while True:
            await self.pause(0.1)
            index, target = self.random.randrange(PARTITIONS), self.random.choice(BROKERS)
            position = FetchPartition(index, fetch_offset=positions[index], partition_max_bytes=1 << 20)
            request = FetchRequest(
                max_wait_ms=20, min_bytes=1, max_bytes=1 << 20, topics=[FetchTopic("", TOPIC_ID, [position])]
            )
            try:
                response = await self.ask(-1, target, FETCH, request)
            except PeerError:
                continue
            answer = response.responses[0].partitions[0]
            if answer.error_code == ErrorCode.NONE and answer.records:
                for _, batch in iter_batches(answer.records):
                    for record in iter_records(batch):
                        self._see(index, record.offset, record.value or b"")
                        positions[index] = record.offset + 1
            if self.random.random() < 0.05:
                positions[index] = 0

    def _see(self, index: int, offset: int, value: bytes) -> None:
        if self.seen.setdefault((index, offset), value) != value:
            raise Violation(f"offset {offset} of {index} held {self.seen[index, offset]!r} and now {value!r}")

    async def _watch_for_ever(self) -> None:
        while True:
            await trio.sleep(0.1)
            for broker_id, node in self.nodes.items():
                for partition in node.broker.replicas:
                    before = node.high_watermarks.get(partition.partition, 0)
                    if partition.high_watermark < before:
                        raise Violation(f"the high watermark of {broker_id} went from {before} back")
                    node.high_watermarks[partition.partition] = partition.high_watermark

    # -- what must hold ----------------------------------------------------------------------------------------------

    def stored(self, broker_id: int, index: int) -> bytes:
        held = self.nodes[broker_id].log_dirs.logs.get((TOPIC, index))
        if held is None:
            return b"none"
        return b"".join(batch for _, batch in held.read_batches(held.log_start_offset, held.log_end_offset))

    def _check(self) -> None:
        for index in range(PARTITIONS):
            found = {
                record.offset: record.value
                for _, batch in iter_batches(self.stored(BROKERS[0], index))
                for record in iter_records(batch)
            }
            for what, promised in (("acknowledged", self.acknowledged), ("read", self.seen)):
                for (partition, offset), value in promised.items():
                    if partition == index and found.get(offset) != value:
                        raise Violation(
                            f"{value!r} was {what} at offset {offset} of {index}; {found.get(offset)!r} is there"
                        )


class Controller:
    """Knows who is registered, and gives leaderships to live in-sync replicas."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.states = [State(-1, 0, BROKERS) for _ in range(PARTITIONS)]
        self.live: dict[int, int] = {}
        """Broker id to broker epoch."""
        self.next_epoch = 100
        self.queues: dict[int, trio.MemorySendChannel[tuple[int, Any]]] = {}

    async def watch(self, broker_id: int, node: Node) -> None:
        """Registers one life of a broker, and notices some time later when it is gone or cannot be reached."""
        simulation = self.simulation
        while simulation.nodes.get(broker_id) is node:
            await simulation.pause(0.1)
            if not simulation.is_cut(CONTROLLER, broker_id) and simulation.nodes.get(broker_id) is node:
                await self._session(broker_id, node)

    async def _session(self, broker_id: int, node: Node) -> None:
        simulation = self.simulation
        if broker_id in self.live:
            self._gone(broker_id)
        self.next_epoch += 1
        node.membership.broker_epoch = epoch = self.next_epoch
        self.live[broker_id] = epoch
        self.queues[broker_id], queue = trio.open_memory_channel[tuple[int, Any]](math.inf)
        simulation.note(f"{broker_id} is registered")
        self._come(broker_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, broker_id, queue)
            silent_s = 0.0
            while silent_s < SESSION_S:
                await trio.sleep(0.1)
                reachable = simulation.nodes.get(broker_id) is node and not simulation.is_cut(CONTROLLER, broker_id)
                silent_s = 0.0 if reachable else silent_s + 0.1
            nursery.cancel_scope.cancel()
        if self.live.get(broker_id) == epoch:
            simulation.note(f"{broker_id} is gone")
            self._gone(broker_id)

    def _come(self, broker_id: int) -> None:
        self._tell_metadata(list(self.live))
        self._tell_roles(range(PARTITIONS), [broker_id])
        for index, state in enumerate(self.states):
            if state.leader < 0:
                self._elect(index)

    def _gone(self, broker_id: int) -> None:
        del self.live[broker_id]
        for index, state in enumerate(self.states):
            if state.leader == broker_id:
                self._elect(index)
            elif broker_id in state.isr and len(state.isr) > 1:
                isr = tuple(each for each in state.isr if each != broker_id)
                self._write(index, state.leader, isr)

    def _elect(self, index: int) -> None:
        state = self.states[index]
        candidates = [each for each in BROKERS if each in self.live and each in state.isr]
        if candidates:
            self._write(index, candidates[0], tuple(each for each in state.isr if each in self.live))
        else:
            self._write(index, -1, state.isr)

    def move_leader(self, index: int) -> None:
        """A preferred election: another live in-sync replica leads."""
        state = self.states[index]
        candidates = [each for each in state.isr if each in self.live and each != state.leader]
        if state.leader in self.live and candidates:
            self._write(index, self.simulation.random.choice(candidates), state.isr)

    def _write(self, index: int, leader: int, isr: tuple[int, ...]) -> None:
        state = self.states[index]
        self.states[index] = State(leader, state.epoch + 1, isr, state.version + 1)
        self.simulation.note(f"partition {index}: {self.states[index]}")
        self._tell_metadata(list(self.live))
        self._tell_roles([index], list(self.live))

    def _tell_metadata(self, targets: list[int]) -> None:
        partitions = [
            UpdateMetadataPartitionState(
                partition_index=index,
                controller_epoch=1,
                leader=state.leader,
                leader_epoch=state.epoch,
                isr=list(state.isr),
                zk_version=state.version,
                replicas=list(BROKERS),
            )
            for index, state in enumerate(self.states)
        ]
        brokers = [
            UpdateMetadataBroker(id=broker_id, endpoints=[UpdateMetadataEndpoint(1, "sim", "PLAINTEXT", 0)])
            for broker_id in self.live
        ]
        for target in targets:
            request = UpdateMetadataRequest(
                controller_id=CONTROLLER,
                controller_epoch=1,
                broker_epoch=self.live[target],
                topic_states=[UpdateMetadataTopicState(TOPIC, TOPIC_ID, partitions)],
                live_brokers=brokers,
            )
            self.queues[target].send_nowait((UPDATE_METADATA, request))

    def _tell_roles(self, indexes: Any, targets: list[int]) -> None:
        states = [
            LeaderAndIsrPartitionState(
                partition_index=index,
                controller_epoch=1,
                leader=self.states[index].leader,
                leader_epoch=self.states[index].epoch,
                isr=list(self.states[index].isr),
                partition_epoch=self.states[index].version,
                replicas=list(BROKERS),
                is_new=True,
            )
            for index in indexes
        ]
        for target in targets:
            request = LeaderAndIsrRequest(
                controller_id=CONTROLLER,
                controller_epoch=1,
                broker_epoch=self.live[target],
                topic_states=[LeaderAndIsrTopicState(TOPIC, TOPIC_ID, states)],
            )
            self.queues[target].send_nowait((LEADER_AND_ISR, request))

    async def _deliver(self, broker_id: int, queue: trio.MemoryReceiveChannel[tuple[int, Any]]) -> None:
        """In order, one in flight, again and again until it is answered."""
        async for key, request in queue:
            is_answered = False
            while not is_answered:
                await self.simulation.pause(0.03)
                try:
                    await self.simulation.ask(CONTROLLER, broker_id, key, request)
                    is_answered = True
                except PeerError:
                    await trio.sleep(0.1)

    async def ask(self, broker_id: int, request: Any) -> AlterPartitionResponse:
        """AlterPartition, with the checks of Apache Kafka's controller."""
        simulation = self.simulation
        await simulation.pause(0.02)
        if simulation.is_cut(CONTROLLER, broker_id):
            raise PeerError("cannot be reached")
        response = self._alter(broker_id, request)
        await simulation.pause(0.02)
        if simulation.is_cut(CONTROLLER, broker_id) or simulation.random.random() < 0.1:
            raise PeerError("no answer")
        return response

    def _alter(self, broker_id: int, request: Any) -> AlterPartitionResponse:
        if self.live.get(broker_id) != request.broker_epoch:
            return AlterPartitionResponse(error_code=ErrorCode.STALE_BROKER_EPOCH)
        answers = [self._alter_one(asked) for asked in request.topics[0].partitions]
        return AlterPartitionResponse(topics=[ResponseTopicData(topic_id=TOPIC_ID, partitions=answers)])

    def _alter_one(self, asked: Any) -> ResponsePartitionData:
        index = asked.partition_index
        state = self.states[index]
        isr = tuple(each.broker_id for each in asked.new_isr_with_epochs)
        error = ErrorCode.NONE
        if asked.leader_epoch < state.epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif asked.partition_epoch > state.version or asked.leader_epoch > state.epoch:
            error = ErrorCode.NOT_CONTROLLER
        elif set(isr) != set(state.isr):
            if asked.partition_epoch < state.version:
                error = ErrorCode.INVALID_UPDATE_VERSION
            elif not set(isr) <= set(self.live):
                error = ErrorCode.INELIGIBLE_REPLICA
            else:
                state = replace(state, isr=isr, version=state.version + 1)
                self.states[index] = state
                self.simulation.note(f"partition {index}: {state}, as asked")
                self._tell_metadata(list(self.live))
        return ResponsePartitionData(index, error, state.leader, state.epoch, list(state.isr), 0, state.version)


class _Peer:
    """A fetcher's connection to its leader."""

    def __init__(self, simulation: Simulation, source: int, target: int, client_id: str) -> None:
        self._simulation, self._source, self._target, self._client_id = simulation, source, target, client_id

    async def ask(self, key: int, request: Any, version: int) -> Any:
        return await self._simulation.ask(self._source, self._target, key, request, client_id=self._client_id)

    def close(self) -> None:
        return


class _KnownCluster:
    """The cluster as the controller has told of it."""

    def __init__(self, replicas: ReplicaManager) -> None:
        self._replicas = replicas
        self.image = MetadataImage("c", -1, {}, {}, {}, {})

    def learn(self, request: UpdateMetadataRequest) -> None:
        self.image = updated(self.image, request)
        self._replicas.apply(self.image)


def _at_once(job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    """What a broker would do in a thread."""
    job()
    done(None)


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


def _with_bytes(response: Any) -> Any:
    """The records of a Fetch, as they were when it was answered."""
    for topic in getattr(response, "responses", ()):
        for answer in getattr(topic, "partitions", ()):
            records = getattr(answer, "records", None)
            if records:
                answer.records = memoryview(records if isinstance(records, bytes) else records.read())
    return response
