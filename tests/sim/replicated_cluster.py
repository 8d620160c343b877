"""Three brokers' replica layers, a network, a controller and clients in one trio run under a mock clock, from one seed.

A broker has real logs on a disk in memory, the real handlers, fetchers and AlterPartition sender. Messages go as
objects with a delay drawn at random; a link that is cut swallows them. A broker is killed by cancelling its tasks: its
disk stays as it was, as after kill -9. The controller is that of simulated_controller.py.

`Simulation.run` lets faults happen for a while, heals everything, waits until the replicas agree, and raises Violation
when a promise was broken.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
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
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.update_metadata import (
    UpdateMetadataRequest,
)
from tests.fault.storage_fs import MemoryFs
from tests.sim.simulated_controller import (
    BROKERS,
    CONTROLLER,
    LEADER_AND_ISR,
    PARTITIONS,
    SESSION_S,
    TOPIC,
    TOPIC_ID,
    UPDATE_METADATA,
    Controller,
)

START_MS = 1_700_000_000_000
LAG_MS = 800
LIMITS = Limits(max_wait_ms=100, backoff_ms=60)
ASK_TIMEOUT_S = 0.5
HANDLERS: dict[int, tuple[Callable[..., Any], int]] = {
    0: (produce, 9),
    1: (fetch, 17),
    2: (list_offsets, 9),
    LEADER_AND_ISR: (leader_and_isr, 7),
    UPDATE_METADATA: (update_metadata, 8),
}
PRODUCE, FETCH = 0, 1


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


class _Peer:
    """A fetcher's connection to its leader."""

    def __init__(self, simulation: Simulation, source: int, target: int, client_id: str) -> None:
        self._simulation, self._source, self._target, self._client_id = simulation, source, target, client_id

    async def ask(self, key: int, request: Any, version: int) -> Any:
        return await self._simulation.ask(self._source, self._target, key, request, client_id=self._client_id)

    async def converse(self, key: int, request: Any, version: int, reply: Callable[[Any], Any]) -> None:
        while request is not None:
            request = reply(await self.ask(key, request, version))

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
