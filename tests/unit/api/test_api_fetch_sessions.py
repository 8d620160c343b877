"""Fetch sessions: what a client learns by asking for changes is what it would learn by asking for everything."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from log_broker import NOW_MS, append, create_topic, open_broker

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch import fetch
from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.replica.rotation import LOOK_OVER_MS
from kpy.storage.fs import FileRegion
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData

PARTITIONS = 8
VERSION = 12
READ_UNCOMMITTED = 0


class Clock:
    now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(tmp_path: Path, clock: Clock) -> Iterator[Broker]:
    with open_broker(tmp_path) as broker:
        create_topic(broker, "t", PARTITIONS)
        broker.now_ms = clock
        yield broker


class SessionClient:
    """Keeps of each partition what it was told last, and reads on from there."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.session_id = self.epoch = 0
        self.positions: dict[int, int] = {}
        self.sent: dict[int, int] = {}
        self.told: dict[int, tuple[int, int, int]] = {}
        """High watermark, log start offset, error."""
        self.changed: list[int] = []
        """Of the last answer."""

    def request(self, max_wait_ms: int = 0, min_bytes: int = 1, max_bytes: int = 1 << 20) -> FetchRequest:
        changed = {index: at for index, at in self.positions.items() if self.sent.get(index) != at}
        forgotten = [index for index in self.sent if index not in self.positions]
        self.sent = dict(self.positions)
        positions = [FetchPartition(index, fetch_offset=at, partition_max_bytes=200) for index, at in changed.items()]
        return FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=min_bytes,
            max_bytes=max_bytes,
            isolation_level=READ_UNCOMMITTED,
            session_id=self.session_id,
            session_epoch=self.epoch,
            topics=[FetchTopic("t", partitions=positions)] if positions else [],
            forgotten_topics_data=[ForgottenTopic("t", partitions=forgotten)] if forgotten else [],
        )

    def ask(self, request: FetchRequest) -> FetchResponse | Pending[FetchResponse]:
        client = Client("127.0.0.1", "PLAINTEXT")
        client.version = VERSION
        return fetch(request, client, self.broker)

    def hear(self, response: FetchResponse) -> None:
        assert response.error_code == ErrorCode.NONE
        self.session_id = response.session_id
        self.epoch += 1
        self.changed = []
        for topic in response.responses:
            for data in topic.partitions:
                self.changed.append(data.partition_index)
                self._hear_of(data)

    def _hear_of(self, data: PartitionData) -> None:
        index = data.partition_index
        self.told[index] = data.high_watermark, data.log_start_offset, data.error_code
        if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            self.positions[index] = self.broker.replicas.partition("t", index).log.log_start_offset
        if data.records:
            self.positions[index] = last_offset(data.records) + 1

    def fetch(self, **limits: int) -> None:
        """Without a wait for more than the disk."""
        trio.run(self._fetch, self.request(**limits))

    async def _fetch(self, request: FetchRequest) -> None:
        response = self.ask(request)
        if isinstance(response, Pending):
            come = trio.Event()
            answers: list[FetchResponse] = []
            response.deliver_to(lambda answer: (answers.append(answer), come.set()))
            await come.wait()
            response = answers[0]
        self.hear(response)


def last_offset(records: Any) -> int:
    from kpy.records.batch import iter_batches

    data = records.read() if isinstance(records, FileRegion) else records
    return max(header.last_offset for header, _ in iter_batches(data))


def partition(broker: Broker, index: int) -> Any:
    return broker.replicas.partition("t", index)


@pytest.mark.parametrize("seed", range(20))
def test_asking_for_changes_tells_what_asking_for_everything_would(broker: Broker, clock: Clock, seed: int) -> None:
    rng = random.Random(seed)
    client = SessionClient(broker)
    client.positions = dict.fromkeys(range(PARTITIONS), 0)

    def appends() -> None:
        for _ in range(rng.choice((1, 1, 1, 20))):
            append(broker, "t", *(bytes(rng.randrange(100)) for _ in range(rng.randint(1, 3))), partition=any_of())

    def any_of() -> int:
        return rng.randrange(PARTITIONS)

    def deletes() -> None:
        held = partition(broker, any_of()).log
        held.advance_log_start_offset(rng.randint(held.log_start_offset, held.high_watermark))

    def chooses() -> None:
        index = any_of()
        if client.positions.pop(index, None) is None:
            client.positions[index] = 0

    def fetches() -> None:
        client.fetch(max_bytes=rng.choice((1, 300, 1 << 20)))
        clock.now_ms += rng.choice((0, 1, 100))

    for _ in range(200):
        rng.choice((appends, appends, fetches, fetches, fetches, deletes, chooses))()
    client.fetch()
    while any(client.positions[index] < partition(broker, index).high_watermark for index in client.positions):
        assert client.changed, "there is more to read, and nothing is told of it"
        client.fetch()
    client.fetch()
    clock.now_ms += LOOK_OVER_MS
    client.fetch()
    for index in client.positions:
        held = partition(broker, index).log
        assert client.told[index] == (held.high_watermark, held.log_start_offset, ErrorCode.NONE)
    client.fetch()
    assert not client.changed


@pytest.fixture
def idle(broker: Broker) -> SessionClient:
    """Has read everything."""
    client = SessionClient(broker)
    client.positions = dict.fromkeys(range(PARTITIONS), 0)
    client.fetch()
    return client


def test_only_where_something_has_happened_is_read(
    broker: Broker, idle: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    genuine = broker.replicas.replica

    def noted(topic: str, index: int) -> Any:
        read.append(index)
        return genuine(topic, index)

    monkeypatch.setattr(broker.replicas, "replica", noted)
    idle.fetch()
    assert not read
    append(broker, "t", b"a", partition=5)
    append(broker, "t", b"a", partition=2)
    read.clear()
    idle.fetch()
    assert list(dict.fromkeys(read)) == idle.changed == [2, 5]


def test_a_fetch_that_waits_is_answered_by_a_partition_that_was_idle(broker: Broker, idle: SessionClient) -> None:
    size = partition(broker, 0).log.size_bytes
    append(broker, "t", b"a", partition=0)
    size = partition(broker, 0).log.size_bytes - size
    idle.fetch()
    answers: list[FetchResponse] = []

    async def main() -> None:
        parked = idle.ask(idle.request(max_wait_ms=10_000, min_bytes=3 * size))
        assert isinstance(parked, Pending)
        parked.deliver_to(answers.append)
        append(broker, "t", b"a", partition=3)
        append(broker, "t", b"a", partition=3)
        assert not answers
        append(broker, "t", b"a", partition=6)
        assert answers

    trio.run(main)
    idle.hear(answers[0])
    assert sorted(idle.changed) == [3, 6]
    assert len(broker.replicas.purgatory) == 0


def test_that_a_topic_is_gone_is_told_of_every_partition_that_was_idle(broker: Broker, idle: SessionClient) -> None:
    answers: list[FetchResponse] = []

    async def main() -> None:
        parked = idle.ask(idle.request(max_wait_ms=10_000, min_bytes=10_000))
        assert isinstance(parked, Pending)
        parked.deliver_to(answers.append)
        append(broker, "t", b"a", partition=3)
        await broker.cluster.delete_topics(lambda _: ["t"])
        assert answers

    trio.run(main)
    idle.hear(answers[0])
    idle.fetch()
    assert {error for _, _, error in idle.told.values()} == {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}
    assert sorted(idle.told) == list(range(PARTITIONS))


@pytest.mark.parametrize("how", ["closed", "replaced", "evicted", "forgotten"])
def test_a_session_that_is_over_is_forgotten_by_its_partitions(
    broker: Broker, clock: Clock, idle: SessionClient, how: str
) -> None:
    assert partition(broker, 0).resting
    if how == "evicted":
        clock.now_ms += 10**6
        for _ in range(broker.config.max_incremental_fetch_session_cache_slots):
            SessionClient(broker).fetch()
    elif how == "forgotten":
        idle.positions = {}
        idle.fetch()
    else:
        idle.epoch = -1 if how == "closed" else 0
        idle.sent, idle.positions = {}, {}
        idle.ask(idle.request())
    assert not any(partition(broker, index).resting for index in range(PARTITIONS))
