"""What `kpy bench` measures: requests a second, throughput, and the time from a producer to its consumer.

Each work runs for a time that is given, the first WARM_UP_S of it uncounted, and says how much of a core its own
process took meanwhile: where that is nearly a whole one, the figure is the client's and the broker could do more.
"""

import math
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import trio

from kpy.cli.bench_client import (
    FETCH,
    METADATA,
    PRODUCE,
    Address,
    AnswerCounter,
    BenchError,
    Cluster,
    Wire,
    error_position,
    refusal,
)
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic
from kpy.wire.primitives import Message
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

WARM_UP_S: Final = 0.3
SMALL_RECORD_BYTES: Final = 100
BATCH_BYTES: Final = 256_000
"""Of a produce request that is to carry much; a quarter of what brokers take by default."""
BATCHES_IN_FLIGHT: Final = 5
FETCH_BYTES: Final = 1024 * 1024
"""A consumer's usual max.partition.fetch.bytes."""
TIMEOUT_MS: Final = 10_000
TAIL_WAIT_MS: Final = 500
CLIENT_IS_LIMIT: Final = 0.85
"""A client that takes this share of a core has hardly waited for the broker."""
MB: Final = 1_000_000

_sent_at: Final = struct.Struct(">d")


class Load(NamedTuple):
    connections: int
    in_flight: int

    def __str__(self) -> str:
        return (
            f"{self.connections} {'connection' if self.connections == 1 else 'connections'}, {self.in_flight} in flight"
        )


class Figure(NamedTuple):
    """One measured number. `client_share` is of a core, `samples` how many requests or records it was taken from."""

    name: str
    value: float
    unit: str
    samples: int
    client_share: float

    @property
    def is_of_client(self) -> bool:
        return self.unit != "ms" and self.client_share >= CLIENT_IS_LIMIT


class Target(NamedTuple):
    """Where is measured, and within which bounds."""

    cluster: Cluster
    leader: Address
    topic: str
    acks: int
    seconds: float
    record_bytes: int
    max_megabytes: int
    """What one work may write."""
    records_per_s: int
    """Of the latency work."""


Work = Callable[[Target], Awaitable[list[Figure]]]


class _Clock:
    """Wall and CPU time since it was started."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> tuple[float, float]:
        """Seconds, and the share of a core that this process took."""
        wall_s = time.perf_counter() - self._wall
        return wall_s, (time.process_time() - self._cpu) / wall_s


# Requests -------------------------------------------------------------------------------------------------------------


def produce_request(target: Target, values: Sequence[bytes], timestamp_ms: int | None = None) -> ProduceRequest:
    now_ms = time.time_ns() // MB if timestamp_ms is None else timestamp_ms
    batch = build_batch([NewRecord(now_ms, None, value) for value in values])
    data = TopicProduceData(target.topic, partition_data=[PartitionProduceData(0, batch)])
    return ProduceRequest(None, target.acks, TIMEOUT_MS, [data])


def fetch_request(target: Target, offset: int, max_wait_ms: int = 0) -> FetchRequest:
    position = FetchPartition(0, fetch_offset=offset, partition_max_bytes=FETCH_BYTES)
    return FetchRequest(max_wait_ms=max_wait_ms, min_bytes=1, topics=[FetchTopic(target.topic, partitions=[position])])


def _of_produce(answer: Any) -> Any:
    return answer.responses[0].partition_responses[0]


def _of_fetch(answer: Any) -> Any:
    return answer.responses[0].partitions[0]


def _of_metadata(answer: Any) -> Any:
    return answer.topics[0]


async def ask(target: Target, wire: Wire, key: int, request: Message, holder: Callable[[Any], Any]) -> Any:
    """What holds the error code in the answer, which is none. Raises BenchError."""
    with trio.move_on_after(2 * TIMEOUT_MS / 1000):
        found = holder(target.cluster.decode(key, await wire.exchange(target.cluster.frame(key, request))))
        if found.error_code:
            raise refusal("refused", found.error_code)
        return found
    raise BenchError(f"no answer within {2 * TIMEOUT_MS / 1000:.0f} s")


async def end_offset(target: Target, wire: Wire) -> int:
    """The offset behind the last record that may be read."""
    position = fetch_request(target, 0)
    with trio.move_on_after(TIMEOUT_MS / 1000):
        frame = target.cluster.frame(FETCH, position)
        return _of_fetch(target.cluster.decode(FETCH, await wire.exchange(frame))).high_watermark
    raise BenchError("no answer to Fetch")


@asynccontextmanager
async def _wires(broker: Address, count: int) -> AsyncGenerator[list[Wire]]:
    wires: list[Wire] = []
    try:
        while len(wires) < count:
            wires.append(await Wire.open(broker))
        yield wires
    finally:
        for wire in wires:
            wire.close()


# Rates ----------------------------------------------------------------------------------------------------------------


class _Tally:
    """Answers so far; `on_full` is set when there are as many as there may be."""

    def __init__(self, limit: float) -> None:
        self.answers = 0
        self.on_full = trio.Event()
        self._limit = limit

    def add(self, count: int) -> None:
        self.answers += count
        if self.answers >= self._limit:
            self.on_full.set()


async def _rate(
    target: Target,
    key: int,
    request: Message,
    holder: Callable[[Any], Any],
    load: Load,
    limit: float = math.inf,
) -> tuple[float, int, float]:
    """Answers a second, how many were counted, and the client's share of a core; at most `limit` answers."""
    cluster = target.cluster
    frame = cluster.frame(key, request)
    async with _wires(target.leader, load.connections) as wires:
        # The first answer, looked at as a whole, tells where to look in the others.
        await ask(target, wires[0], key, request, holder)
        answer = bytes(await wires[0].exchange(frame))
        position = error_position(key, cluster.versions[key], answer, holder)
        tally = _Tally(limit)
        async with trio.open_nursery() as nursery:
            for wire in wires:
                nursery.start_soon(_keep_asking, wire, frame, load.in_flight, AnswerCounter(position), tally)
            counted_before, clock = 0, _Clock()
            with trio.move_on_after(min(WARM_UP_S, target.seconds)):
                await tally.on_full.wait()
            # Where there may be so few answers that none is left by now, those of the warm-up count.
            if not tally.on_full.is_set():
                counted_before, clock = tally.answers, _Clock()
                with trio.move_on_after(target.seconds):
                    await tally.on_full.wait()
            counted = tally.answers - counted_before
            seconds, client_share = clock.read()
            nursery.cancel_scope.cancel()
    if not counted:
        raise BenchError(f"no answer within {target.seconds:g} s")
    return counted / seconds, counted, client_share


async def _keep_asking(wire: Wire, frame: bytes, in_flight: int, counter: AnswerCounter, tally: _Tally) -> None:
    """Each answer that comes back sends one more request, those of one read together."""
    bursts = [frame * count for count in range(in_flight + 1)]
    await wire.send(bursts[in_flight])
    while not tally.on_full.is_set():
        count = counter.feed(await wire.receive())
        tally.add(count)
        await wire.send(bursts[count])


def request_works(load: Load) -> list[tuple[str, Work]]:
    """Requests a second, of three kinds, by the group they belong to."""

    def work(
        name: str, key: int, request: Callable[[Target], Awaitable[Message]], holder: Callable[[Any], Any]
    ) -> tuple[str, Work]:
        async def measure(target: Target) -> list[Figure]:
            message = await request(target)
            rate, answers, client_share = await _rate(target, key, message, holder, load)
            return [Figure(f"{name}, {load}", rate, "requests/s", answers, client_share)]

        return name.split(maxsplit=1)[-1].lower(), measure

    async def small_produce(target: Target) -> Message:
        return produce_request(target, [bytes(SMALL_RECORD_BYTES)])

    async def empty_fetch(target: Target) -> Message:
        async with _wires(target.leader, 1) as (wire,):
            return fetch_request(target, await end_offset(target, wire))

    async def one_topic(target: Target) -> Message:
        return MetadataRequest([MetadataRequestTopic(name=target.topic)], False)

    return [
        work("Produce", PRODUCE, small_produce, _of_produce),
        work("empty Fetch", FETCH, empty_fetch, _of_fetch),
        work("Metadata", METADATA, one_topic, _of_metadata),
    ]


# Throughput -----------------------------------------------------------------------------------------------------------


async def throughput(target: Target) -> list[Figure]:
    """MB of record values a second, written by one connection and then read again by one."""
    records = max(1, BATCH_BYTES // target.record_bytes)
    # Values that differ within a batch, so that no layer below compresses them away.
    values = [(number.to_bytes(8) * (target.record_bytes // 8 + 1))[: target.record_bytes] for number in range(records)]
    batch_mb = records * target.record_bytes / MB
    async with _wires(target.leader, 1) as (wire,):
        first_offset = await end_offset(target, wire)
    load = Load(1, BATCHES_IN_FLIGHT)
    limit = max(BATCHES_IN_FLIGHT, target.max_megabytes / batch_mb)
    request = produce_request(target, values)
    rate, batches, client_share = await _rate(target, PRODUCE, request, _of_produce, load, limit)
    what = f"records of {target.record_bytes} bytes"
    written = Figure(f"produce, {what}", rate * batch_mb, "MB/s", batches * records, client_share)
    records_rate, read, client_share = await _read_again(target, first_offset)
    read_mb_per_s = records_rate * target.record_bytes / MB
    return [written, Figure(f"consume, {what}", read_mb_per_s, "MB/s", read, client_share)]


async def _read_again(target: Target, first_offset: int) -> tuple[float, int, float]:
    """Records a second, how many, and the client's share of a core. Begins again at the end, until the time is over."""
    records, offset = 0, first_offset
    async with _wires(target.leader, 1) as (wire,):
        clock = _Clock()
        with trio.move_on_after(target.seconds):
            while True:
                found = await ask(target, wire, FETCH, fetch_request(target, offset), _of_fetch)
                next_offset = offset
                for header, _ in iter_batches(found.records or b""):
                    records += header.records_count
                    next_offset = header.base_offset + header.last_offset_delta + 1
                offset = first_offset if next_offset == offset else next_offset
                await trio.lowlevel.checkpoint()
        seconds, client_share = clock.read()
    if not records:
        raise BenchError("the records cannot be read again")
    return records / seconds, records, client_share


# Latency --------------------------------------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all is not above."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def latency(target: Target) -> list[Figure]:
    """From before a record is sent until a consumer that waits for it has it, at a steady pace."""
    waits_ms: list[float] = []
    async with _wires(target.leader, 2) as (producer, consumer):
        offset = await end_offset(target, consumer)
        clock = _Clock()
        count = max(1, round(target.seconds * target.records_per_s))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tail, target, consumer, offset, count, waits_ms)
            due = trio.current_time()
            for _ in range(count):
                due += 1 / target.records_per_s
                await trio.sleep_until(due)
                value = _sent_at.pack(time.perf_counter()).ljust(SMALL_RECORD_BYTES, b"\0")
                await ask(target, producer, PRODUCE, produce_request(target, [value]), _of_produce)
        _, client_share = clock.read()
    counted = sorted(waits_ms[min(target.records_per_s // 2, len(waits_ms) // 4) :])
    name = f"end to end, {target.records_per_s} records/s, acks={'all' if target.acks < 0 else target.acks}"
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    return [
        Figure(f"{name}: {what}", percentile(counted, share), "ms", len(counted), client_share)
        for what, share in shares.items()
    ]


async def _tail(target: Target, wire: Wire, offset: int, count: int, waits_ms: list[float]) -> None:
    """Reads `count` records as they come, and notes how long each was under way."""
    silent_since = trio.current_time()
    while len(waits_ms) < count:
        found = await ask(target, wire, FETCH, fetch_request(target, offset, TAIL_WAIT_MS), _of_fetch)
        now = time.perf_counter()
        for header, batch in iter_batches(found.records or b""):
            if header.base_offset + header.last_offset_delta < offset:
                continue
            offset = header.base_offset + header.last_offset_delta + 1
            for record in iter_records(batch):
                if record.value is not None and len(waits_ms) < count:
                    waits_ms.append(1000 * (now - _sent_at.unpack_from(record.value)[0]))
            silent_since = trio.current_time()
        if trio.current_time() > silent_since + TIMEOUT_MS / 1000:
            raise BenchError("the consumer waits in vain for what the producer has written")


GROUPS: Final = ("produce", "fetch", "metadata", "throughput", "latency")


def works(groups: Sequence[str], loads: Sequence[Load]) -> list[tuple[str, Work]]:
    """What is to be measured, in order, each with the name under which a failure is told."""
    chosen = [each for kind in range(3) for load in loads for each in [request_works(load)[kind]]]
    chosen += [("throughput", throughput), ("latency", latency)]
    return [(group, work) for group, work in chosen if group in groups]
