"""Transactional producers, and a broker that dies in the middle of its writes, in simulated time.

Deaths are SIGKILLs, or, with flush.messages=1, power cuts too (dying_broker.py). Producers of both protocols write
transactions over several partitions and a group's offsets, lose answers, are doubled by late requests of their former
selves, and begin anew. Whatever happens, a transaction counts in all of its places or in none, once, and a commit that
was answered counts. Each attempt's offset says which it is, and an onlooker asks for offsets all the time: that of an
attempt that was aborted is never seen, and what was seen once, or answered, is never lost.

    KPY_SIM_SEEDS=1000-3000 pytest tests/sim/test_sim_transactions.py       runs other seeds; a failure names its own
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from kpy.api.add_offsets_to_txn import add_offsets_to_txn
from kpy.api.add_partitions_to_txn import add_partitions_to_txn
from kpy.api.broker import Broker
from kpy.api.create_topics import create_topics
from kpy.api.end_txn import end_txn
from kpy.api.find_coordinator import find_coordinator
from kpy.api.init_producer_id import init_producer_id
from kpy.api.offset_fetch import offset_fetch
from kpy.api.produce import produce
from kpy.api.txn_offset_commit import txn_offset_commit
from kpy.group.offsets import Offsets
from kpy.machine import NO_PRODUCER_ID, Effects
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records
from kpy.storage.producer_state import parse_marker
from kpy.txn.shard import TransactionShard
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
from tests.sim.dying_broker import DyingBroker, now_ms

TOPIC = "t"
PARTITIONS = 4
PRODUCERS = 4
RUN_S = 25.0
SETTLE_S = 30.0
FIRST_SEED, LAST_SEED = (int(each) for each in os.environ.get("KPY_SIM_SEEDS", "0-4").split("-"))
SEEDS_A_BUG = 20
TIMEOUT_MS = 5_000
OFFSET = 1_000
"""What is added to the number of an attempt."""


class World(DyingBroker):
    """The broker, and what its producers know to be committed."""

    def __init__(self, directory: Path, seed: int, *, power_fails: bool) -> None:
        settings = {
            "transaction.state.log.num.partitions": "2",
            "offsets.topic.num.partitions": "2",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "log.index.size.max.bytes": "1000",
        }
        if power_fails:
            settings["log.flush.interval.messages"] = "1"
        super().__init__(directory, seed, settings, power_fails=power_fails)
        self.late: list[tuple[Callable[..., Any], Any, int]] = []
        """Requests that were sent and may arrive again."""


def records_of(name: str, attempt: int, producer: tuple[int, int], sequence: int) -> bytes:
    record = NewRecord(now_ms(), name.encode(), b"%d" % attempt)
    return build_batch(
        [record], producer_id=producer[0], producer_epoch=producer[1], base_sequence=sequence, transactional=True
    )


class Producer:
    """Writes transaction 0, 1, 2, ... of its transactional id, each attempt after attempt until it is committed."""

    def __init__(self, world: World, name: str, *, is_v2: bool) -> None:
        self.world = world
        self.name = name
        self.is_v2 = is_v2
        self.committed: list[frozenset[int]] = []
        """The partitions that each of its committed transactions has written to."""
        self.attempt = 0
        self.partitions: frozenset[int] = frozenset()
        """Those of the attempt that was made last."""
        self.attempt_committed = 0
        self.counted = {0}
        """All that have been committed before and at last; 0 is none at all."""
        self.may_count: set[int] = {0}
        """The attempts that are committed at last, or may be, because nobody has answered yet."""
        self.attempt_seen = 0
        """The latest whose offset the onlooker has seen."""
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
        found = await self.offset_of(stable=True)
        if found is None:
            return False
        # What was answered counts; at most the last one, whose answer was lost, counts without.
        assert found in self.may_count, "an offset of an aborted transaction, or of one that was never committed"
        assert found >= max(self.attempt_committed, self.attempt_seen), "an offset is lost"
        if found > self.attempt_committed:
            self.counts(found)
        self.may_count = {found}
        return True

    def counts(self, attempt: int) -> None:
        self.attempt_committed = attempt
        self.counted.add(attempt)
        self.committed.append(self.partitions)

    async def offset_of(self, *, stable: bool) -> int | None:
        """The attempt whose offset is committed, or None without an answer."""
        topics = [OffsetFetchRequestTopic(TOPIC, [0])]
        answer = await self.world.ask(offset_fetch, OffsetFetchRequest(self.name, topics, require_stable=stable), 7)
        if answer is None or answer.error_code:
            return None
        (partition,) = answer.topics[0].partitions
        if partition.error_code:
            return None
        attempt = int(partition.metadata or 0)
        assert partition.committed_offset == (OFFSET + attempt if attempt else -1)
        return attempt

    async def look(self) -> None:
        """Ask for the offset as anybody may, while the producer does what it does."""
        before = self.attempt_committed
        found = await self.offset_of(stable=False)
        if found is not None:
            assert found >= before, "an offset that was answered is lost"
            assert found in self.may_count | self.counted, "an offset of no committed transaction"
            self.attempt_seen = max(self.attempt_seen, found)

    async def transact(self) -> bool:
        """One transaction. False when the producer has lost its place."""
        partitions = self.random.sample(range(PARTITIONS), self.random.randint(1, PARTITIONS))
        self.partitions = frozenset(partitions)
        self.attempt += 1
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
        if commits:
            self.may_count.add(self.attempt)
        request = EndTxnRequest(self.name, *self.identity, commits)
        answer = await self.ask(end_txn, request, 5 if self.is_v2 else 3)
        if answer is None or answer.error_code:
            return False
        if commits:
            self.counts(self.attempt)
            self.may_count = {self.attempt}
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
        records = records_of(self.name, self.attempt, self.identity, self.sequences[partition])
        topic = TopicProduceData(TOPIC, bytes(16), [PartitionProduceData(partition, memoryview(records))])
        answer = await self.ask(produce, ProduceRequest(self.name, -1, 1000, [topic]), 12 if self.is_v2 else 9)
        self.sequences[partition] += 1
        return answer is not None and not answer.responses[0].partition_responses[0].error_code

    async def commit_offset(self) -> bool:
        if not self.is_v2:
            answer = await self.ask(add_offsets_to_txn, AddOffsetsToTxnRequest(self.name, *self.identity, self.name), 3)
            if answer is None or answer.error_code:
                return False
        partition = TxnOffsetCommitRequestPartition(0, OFFSET + self.attempt, -1, str(self.attempt))
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


async def look_on(producers: list[Producer]) -> None:
    while True:
        for producer in producers:
            await producer.look()


async def simulate(world: World, producers: list[Producer]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run)
        await trio.sleep(2)
        await world.ask(create_topics, CreateTopicsRequest([CreatableTopic(TOPIC, PARTITIONS, 1)], 1000), 5)
        for key_type in (0, 1):
            await world.ask(find_coordinator, FindCoordinatorRequest("any", key_type), 3)
        await trio.sleep(1)
        # The topic's id is the one thing that no seed says.
        world.trace.clear()
        world.may_die = True
        world.die()
        nursery.start_soon(look_on, producers)
        async with trio.open_nursery() as late:
            late.start_soon(send_late, world)
            async with trio.open_nursery() as writing:
                for producer in producers:
                    writing.start_soon(producer.run, trio.current_time() + RUN_S)
            # What arrives now may still begin a transaction, which its timeout ends.
            late.cancel_scope.cancel()
        world.may_die = False
        world.die()
        await trio.sleep(SETTLE_S)
        assert world.broker is not None
        await check(world.broker, producers)
        nursery.cancel_scope.cancel()


async def check(broker: Broker, producers: list[Producer]) -> None:
    found = [read_committed(broker, partition) for partition in range(PARTITIONS)]
    for producer in producers:
        places: dict[int, set[int]] = {}
        for partition, seen in enumerate(found):
            for (name, attempt), count in seen.items():
                assert count == 1, "a record is there twice"
                if name == producer.name:
                    places.setdefault(attempt, set()).add(partition)
        counted = await producer.offset_of(stable=True)
        assert counted is not None, "a transaction that holds an offset back hangs"
        assert counted in producer.may_count
        # The last one may have been committed when its answer was lost and nobody asked any more.
        if counted > producer.attempt_committed:
            producer.counts(counted)
        assert [frozenset(places[attempt]) for attempt in sorted(places)] == producer.committed
        assert max(places, default=0) == counted, "records and offsets of a transaction differ"


def run(seed: int, directory: Path, *, power_fails: bool) -> World:
    """One simulation, with a data directory of its own; what fails shows its seed and all that happened."""
    world = World(directory / f"{seed}-{power_fails}", seed, power_fails=power_fails)
    producers = [Producer(world, f"id-{number}", is_v2=number % 2 == 0) for number in range(PRODUCERS)]
    try:
        with pytest.MonkeyPatch.context() as patch:
            world.simulate(partial(simulate, world, producers), patch)
    except BaseException:
        print("\n".join(world.trace))
        print(f"seed {seed}, {'with' if power_fails else 'without'} power cuts")
        raise
    assert world.life >= 10
    assert sum(producer.number for producer in producers) >= 10
    return world


POWER = pytest.mark.parametrize("power_fails", [False, True], ids=["kill -9", "power cuts, flush.messages=1"])


@POWER
@pytest.mark.parametrize("seed", range(FIRST_SEED, LAST_SEED))
def test_transactions_count_once_and_whole_through_deaths_of_the_broker(
    seed: int, power_fails: bool, tmp_path: Path
) -> None:
    run(seed, tmp_path, power_fails=power_fails)


@POWER
def test_a_seed_runs_the_same_way_twice(power_fails: bool, tmp_path: Path) -> None:
    first, second = (run(0, tmp_path / name, power_fails=power_fails).trace for name in ("first", "second"))
    assert first == second


# -- bugs, put in, which the simulation must find --------------------------------------------------------------------


def offsets_count_at_once(patch: pytest.MonkeyPatch) -> None:
    """A transaction's offsets are not held back until its marker."""
    put = Offsets.put
    patch.setattr(Offsets, "put", lambda self, *args: put(self, *args[:-1], NO_PRODUCER_ID))


def aborts_commit_offsets(patch: pytest.MonkeyPatch) -> None:
    end = Offsets.end_transaction
    patch.setattr(
        Offsets, "end_transaction", lambda self, producer_id, *, committed: end(self, producer_id, committed=True)
    )


def markers_are_not_written_again(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that dies between its decision and the markers leaves the transaction open."""
    patch.setattr(TransactionShard, "loaded", lambda self, now_ms: Effects())


def markers_are_not_replayed(patch: pytest.MonkeyPatch) -> None:
    """Offsets whose marker was written in another life are never taken over."""
    patch.setattr("kpy.coordinator.parse_marker", lambda batch: None)


def answers_come_before_the_flush(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("kpy.replica.group_commit._run", lambda jobs: None)


@pytest.mark.parametrize(
    ("bug", "power_fails"),
    [
        (offsets_count_at_once, False),
        (aborts_commit_offsets, False),
        (markers_are_not_written_again, False),
        (markers_are_not_replayed, False),
        (answers_come_before_the_flush, True),
    ],
)
def test_the_simulation_finds(
    bug: Callable[[pytest.MonkeyPatch], None], power_fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    for seed in range(SEEDS_A_BUG):
        try:
            run(seed, tmp_path, power_fails=power_fails)
        except (AssertionError, BaseExceptionGroup):
            return
    pytest.fail(f"{SEEDS_A_BUG} seeds do not find that {bug.__name__}")
