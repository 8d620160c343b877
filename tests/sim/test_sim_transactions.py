"""Transactional producers, a broker with real logs that dies between any two of its writes, and simulated time.

A death leaves what had been written, as kill -9 does: the data directory is copied at that moment, and the next life of
the broker starts from the copy. Producers of both protocols write transactions over several partitions and a group's
offsets, lose answers, are doubled by late requests of their former selves, and begin anew. Whatever happens, a
transaction counts in all of its places or in none, once, and a commit that was answered counts.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kpy.api.add_offsets_to_txn import add_offsets_to_txn
from kpy.api.add_partitions_to_txn import add_partitions_to_txn
from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.create_topics import create_topics
from kpy.api.end_txn import end_txn
from kpy.api.find_coordinator import find_coordinator
from kpy.api.init_producer_id import init_producer_id
from kpy.api.offset_fetch import offset_fetch
from kpy.api.produce import produce
from kpy.api.txn_offset_commit import txn_offset_commit
from kpy.config import BrokerConfig
from kpy.pending import Pending
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records
from kpy.replica.partition import Partition
from kpy.server import opened
from kpy.storage.producer_state import parse_marker
from kpy.wire.add_offsets_to_txn import AddOffsetsToTxnRequest
from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnRequest, AddPartitionsToTxnTopic
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.end_txn import EndTxnRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)

TOPIC = "t"
PARTITIONS = 4
PRODUCERS = 4
RUN_S = 20.0
SETTLE_S = 30.0
DEATH_RATE = 0.004
"""Before and after each append."""
RETRY_S = 0.05
MAX_RETRIES = 200
TIMEOUT_MS = 5_000
START_MS = 1_700_000_000_000


class DeadError(Exception):
    """The broker has died in the middle of something."""


class World:
    """The one broker, as long as it is up, and what its producers know to be committed."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory / "0"
        self.random = random.Random(seed)
        self.broker: Broker | None = None
        self.life = 0
        self.may_die = False
        self.died = trio.Event()
        self.committed: dict[str, list[frozenset[int]]] = {}
        """Transactional id -> the partitions that each of its committed transactions has written to."""
        self.late: list[tuple[Callable[..., Any], Any, int]] = []
        """Requests that were sent and may arrive again."""

    def die(self) -> None:
        """Nothing that is done from now on is seen by anybody."""
        if not self.may_die or self.broker is None or self.random.random() >= DEATH_RATE:
            return
        self.life += 1
        following = self.directory.with_name(str(self.life))
        shutil.copytree(self.directory, following)
        self.directory = following
        self.broker = None
        self.died.set()
        raise DeadError

    async def run_broker(self) -> None:
        while True:
            self.died = trio.Event()
            config = BrokerConfig.of(
                {
                    "log.dirs": str(self.directory),
                    "listeners": "PLAINTEXT://127.0.0.1:0",
                    "transaction.state.log.num.partitions": "2",
                    "offsets.topic.num.partitions": "2",
                    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
                }
            )
            async with opened(config, now_ms) as opened_broker:
                broker = opened_broker.broker
                await broker.cluster.register({"PLAINTEXT": ("127.0.0.1", 1)}, {"PLAINTEXT": "PLAINTEXT"})
                async with trio.open_nursery() as nursery:
                    self.broker = broker
                    nursery.start_soon(self.run_task, broker.groups.run)
                    nursery.start_soon(self.run_task, broker.transactions.run)
                    await self.died.wait()
                    nursery.cancel_scope.cancel()
            await trio.sleep(self.random.random())

    async def run_task(self, task: Callable[[], Any]) -> None:
        try:
            await task()
        except* DeadError:
            pass

    async def ask(self, handler: Callable[..., Any], request: Any, version: int) -> Any:
        """A request's answer. None when the broker is away, or dies before it has answered."""
        await trio.sleep(self.random.random() * RETRY_S)
        broker = self.broker
        if broker is None:
            return None
        client = Client("127.0.0.1", "PLAINTEXT")
        client.version = version
        try:
            answer = handler(request, client, broker)
            if isinstance(answer, Coroutine):
                answer = await answer
        except DeadError:
            return None
        if not isinstance(answer, Pending):
            return answer if self.broker is broker else None
        answered: list[Any] = []
        answer.deliver_to(answered.append)
        for _ in range(MAX_RETRIES):
            if self.broker is not broker or answered:
                break
            await trio.sleep(RETRY_S)
        return answered[0] if answered else None


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1_000)


def records_of(name: str, number: int, producer: tuple[int, int], sequence: int) -> bytes:
    record = NewRecord(now_ms(), name.encode(), b"%d" % number)
    return build_batch(
        [record], producer_id=producer[0], producer_epoch=producer[1], base_sequence=sequence, transactional=True
    )


class Producer:
    """Writes transaction 0, 1, 2, ... of its transactional id, each again until it is committed."""

    def __init__(self, world: World, name: str, *, is_v2: bool) -> None:
        self.world = world
        self.name = name
        self.is_v2 = is_v2
        self.committed = world.committed.setdefault(name, [])
        self.partitions: frozenset[int] = frozenset()
        """Those of the transaction that was tried last."""
        self.identity = (-1, -1)
        self.sequences: Counter[int] = Counter()
        self.random = random.Random(world.random.random())

    @property
    def number(self) -> int:
        return len(self.committed)

    async def run(self, until_s: float) -> None:
        while trio.current_time() < until_s:
            if await self.begin_anew():
                while trio.current_time() < until_s and await self.transact():
                    pass

    async def begin_anew(self) -> bool:
        """Take the id, then ask which of the transactions counts: its offset says so."""
        request = InitProducerIdRequest(self.name, TIMEOUT_MS, -1, -1)
        answer = await self.ask(init_producer_id, request, 4)
        if answer is None or answer.error_code:
            return False
        self.identity = (answer.producer_id, answer.producer_epoch)
        self.sequences.clear()
        topics = [OffsetFetchRequestTopic(TOPIC, [0])]
        answer = await self.ask(offset_fetch, OffsetFetchRequest(self.name, topics, require_stable=True), 7)
        if answer is None or answer.error_code:
            return False
        (partition,) = answer.topics[0].partitions
        if partition.error_code:
            return False
        # What was answered counts; at most the last one, whose answer was lost, counts without.
        assert partition.committed_offset in (self.number - 1, self.number)
        if partition.committed_offset == self.number:
            self.committed.append(self.partitions)
        return True

    async def transact(self) -> bool:
        """One transaction. False when the producer has lost its place."""
        partitions = self.random.sample(range(PARTITIONS), self.random.randint(1, PARTITIONS))
        self.partitions = frozenset(partitions)
        if self.random.random() < 0.02:
            await trio.sleep(2 * TIMEOUT_MS / 1000)
        if not self.is_v2 and not await self.add(partitions):
            return False
        for partition in partitions:
            if not await self.write(partition):
                return False
        if not await self.commit_offset():
            return False
        commits = self.random.random() < 0.7
        request = EndTxnRequest(self.name, *self.identity, commits)
        answer = await self.ask(end_txn, request, 5 if self.is_v2 else 3)
        if answer is None or answer.error_code:
            return False
        if commits:
            self.committed.append(self.partitions)
        if self.is_v2:
            self.identity = (answer.producer_id, answer.producer_epoch)
            self.sequences.clear()
        return True

    async def add(self, partitions: list[int]) -> bool:
        topics = [AddPartitionsToTxnTopic(TOPIC, partitions)]
        request = AddPartitionsToTxnRequest([], self.name, *self.identity, topics)
        answer = await self.ask(add_partitions_to_txn, request, 3)
        if answer is None:
            return False
        errors = {each.partition_error_code for each in answer.results_by_topic_v3_and_below[0].results_by_partition}
        return errors == {0}

    async def write(self, partition: int) -> bool:
        records = records_of(self.name, self.number, self.identity, self.sequences[partition])
        topic = TopicProduceData(TOPIC, bytes(16), [PartitionProduceData(partition, memoryview(records))])
        answer = await self.ask(produce, ProduceRequest(self.name, -1, 1000, [topic]), 12 if self.is_v2 else 9)
        self.sequences[partition] += 1
        return answer is not None and not answer.responses[0].partition_responses[0].error_code

    async def commit_offset(self) -> bool:
        if not self.is_v2:
            answer = await self.ask(add_offsets_to_txn, AddOffsetsToTxnRequest(self.name, *self.identity, self.name), 3)
            if answer is None or answer.error_code:
                return False
        partition = TxnOffsetCommitRequestPartition(0, self.number, -1, "")
        topics = [TxnOffsetCommitRequestTopic(TOPIC, [partition])]
        request = TxnOffsetCommitRequest(self.name, self.name, *self.identity, topics=topics)
        answer = await self.ask(txn_offset_commit, request, 5 if self.is_v2 else 4)
        return answer is not None and not answer.topics[0].partitions[0].error_code

    async def ask(self, handler: Callable[..., Any], request: Any, version: int) -> Any:
        # With the older protocol a late EndTxn can end the next transaction: that is what version 2 is for.
        if self.is_v2 and handler in (end_txn, produce, txn_offset_commit) and self.random.random() < 0.2:
            self.world.late.append((handler, request, version))
        return await self.world.ask(handler, request, version)


async def send_late(world: World) -> None:
    """Requests that were sent long ago arrive, in any order."""
    while True:
        await trio.sleep(world.random.random() * 2)
        if world.late:
            handler, request, version = world.late.pop(world.random.randrange(len(world.late)))
            await world.ask(handler, request, version)


def read_committed(broker: Broker, partition: int) -> Counter[tuple[str, int]]:
    """What a consumer of committed records keeps: it leaves out what it is told was aborted."""
    log = broker.replicas.partition(TOPIC, partition).log
    assert log.last_stable_offset == log.log_end_offset, "a transaction hangs"
    seen: Counter[tuple[str, int]] = Counter()
    offset = 0
    while offset < log.log_end_offset:
        region = log.read(offset, 9999, log.last_stable_offset, True)
        assert region is not None
        told = log.aborted_transactions(offset, log.last_stable_offset)
        pending = sorted((each.first_offset, each.producer_id) for each in told)
        aborted: set[int] = set()
        for header, batch in iter_batches(region.read()):
            while pending and pending[0][0] <= header.last_offset:
                aborted.add(pending.pop(0)[1])
            offset = header.last_offset + 1
            if header.is_control:
                marker = parse_marker(memoryview(batch))
                assert marker is not None
                if marker.is_abort:
                    aborted.discard(header.producer_id)
            elif header.producer_id not in aborted:
                seen.update(((record.key or b"").decode(), int(record.value or b"")) for record in iter_records(batch))
    return seen


async def simulate(world: World, producers: list[Producer]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run_broker)
        await trio.sleep(2)
        await world.ask(create_topics, CreateTopicsRequest([CreatableTopic(TOPIC, PARTITIONS, 1)], 1000), 5)
        for key_type in (0, 1):
            await world.ask(find_coordinator, FindCoordinatorRequest("any", key_type), 3)
        world.may_die = True
        nursery.start_soon(send_late, world)
        async with trio.open_nursery() as writing:
            for producer in producers:
                writing.start_soon(producer.run, trio.current_time() + RUN_S)
        world.may_die = False
        await trio.sleep(SETTLE_S)
        assert world.broker is not None
        check(world.broker, producers)
        nursery.cancel_scope.cancel()


def check(broker: Broker, producers: list[Producer]) -> None:
    found = [read_committed(broker, partition) for partition in range(PARTITIONS)]
    for producer in producers:
        places: dict[int, set[int]] = {}
        for partition, seen in enumerate(found):
            for (name, number), count in seen.items():
                assert count == 1, "a record is there twice"
                if name == producer.name:
                    places.setdefault(number, set()).add(partition)
        expected = dict(enumerate(producer.committed))
        # The last one may have been committed when its answer was lost and nobody asked any more.
        assert places in (expected, {**expected, producer.number: producer.partitions})


@pytest.mark.parametrize("seed", range(4))
def test_transactions_count_once_and_whole_through_deaths_of_the_broker(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, seed)
    append = Partition.append

    def append_and_die(self: Partition, *args: Any) -> Any:
        world.die()
        info = append(self, *args)
        world.die()
        return info

    monkeypatch.setattr(Partition, "append", append_and_die)
    producers = [Producer(world, f"id-{number}", is_v2=number % 2 == 0) for number in range(PRODUCERS)]
    trio.run(simulate, world, producers, clock=MockClock(autojump_threshold=0))
    assert world.life >= 3
    assert all(producer.number >= 3 for producer in producers)
