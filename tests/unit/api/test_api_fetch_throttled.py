"""A leader holds followers back that are not in sync, once they have taken too much (KIP-73)."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch import fetch
from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.replication_quota import UNLIMITED_BYTES_PER_SECOND
from kpy.wire import incremental_alter_configs
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, ReplicaState
from kpy.wire.incremental_alter_configs import AlterableConfig, AlterConfigsResource, IncrementalAlterConfigsRequest
from tests.unit.api import log_broker
from tests.unit.api.log_broker import append, create_topic, open_broker

IN_SYNC, BEHIND = 2, 3
CONSUMER = -1
BROKER_RESOURCE = 4
SET, DELETE = 0, 1
BATCH_BYTES = 400


@pytest.fixture
def broker(tmp_path: Path) -> Generator[Broker, None, None]:
    """It leads `throttled`, `free` and `elsewhere`, whose leader is throttled on another broker only."""
    with open_broker(tmp_path) as broker:
        create_topic(broker, "throttled", leader_replication_throttled_replicas="0:1")
        create_topic(broker, "free", follower_replication_throttled_replicas="*")
        create_topic(broker, "elsewhere", leader_replication_throttled_replicas="0:2,0:3,1:1")
        yield broker


def run(broker: Broker, test: Callable[[], Awaitable[None]]) -> None:
    """On a mock clock, with a follower in sync and one that is not, and a batch in each topic that is more than the
    leader's quota for a second.
    """

    async def main() -> None:
        for partition in broker.replicas:
            followed = replace(partition.image, replicas=(1, IN_SYNC, BEHIND), isr=(1, IN_SYNC), leader_epoch=1)
            partition.lead_or_follow(followed)
        broker.replicas.throttles.limit(BATCH_BYTES, 0)
        for topic in ("throttled", "free", "elsewhere"):
            append(broker, topic, bytes(BATCH_BYTES))
        await test()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def ask(broker: Broker, replica: int, *topics: str, max_wait_ms: int = 0, min_bytes: int = 1, offset: int = 0) -> Any:
    position = FetchPartition(0, fetch_offset=offset, partition_max_bytes=1 << 20)
    ids = {name: broker.cluster.image.topics[name].topic_id for name in topics}
    request = FetchRequest(
        replica_state=ReplicaState(replica, -1),
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=1 << 20,
        session_epoch=-1,
        topics=[FetchTopic("", ids[name], [position]) for name in topics],
    )
    client = Client("127.0.0.1", "PLAINTEXT")
    client.version = 17
    return fetch(request, client, broker)


def answers(response: FetchResponse) -> list[PartitionData]:
    return [partition for topic in response.responses for partition in topic.partitions]


def have_records(response: FetchResponse) -> list[bool]:
    """Whether there are records, for each partition."""
    return [bool(answer.records) for answer in answers(response)]


def test_a_follower_outside_the_isr_gets_no_records_while_the_quota_is_exceeded(broker: Broker) -> None:
    async def test() -> None:
        assert have_records(ask(broker, BEHIND, "throttled")) == [True]
        (answer,) = answers(ask(broker, BEHIND, "throttled"))
        assert (answer.error_code, bool(answer.records)) == (ErrorCode.NONE, False)
        log = broker.replicas.partition("throttled", 0).log
        assert (answer.high_watermark, answer.log_start_offset) == (log.high_watermark, log.log_start_offset)
        await trio.sleep(2)
        assert have_records(ask(broker, BEHIND, "throttled")) == [True]

    run(broker, test)


def test_replicas_in_sync_consumers_and_other_partitions_are_not_held_back(broker: Broker) -> None:
    async def test() -> None:
        ask(broker, BEHIND, "throttled")
        assert have_records(ask(broker, BEHIND, "throttled", "free", "elsewhere")) == [False, True, True]
        assert have_records(ask(broker, IN_SYNC, "throttled")) == [True]
        assert broker.replicas.partition("throttled", 0).log.high_watermark == 0
        broker.replicas.partition("throttled", 0).log.high_watermark = 1
        assert have_records(ask(broker, CONSUMER, "throttled")) == [True]

    run(broker, test)


def test_what_replicas_in_sync_take_counts_and_what_others_take_does_not(broker: Broker) -> None:
    async def test() -> None:
        for topic in ("free", "elsewhere"):
            ask(broker, BEHIND, topic)
        broker.replicas.partition("throttled", 0).log.high_watermark = 1
        ask(broker, CONSUMER, "throttled")
        assert broker.replicas.throttles.leader.exceeded_for_ms(0) == 0
        ask(broker, IN_SYNC, "throttled")
        assert broker.replicas.throttles.leader.exceeded_for_ms(0) > 0

    run(broker, test)


def test_another_rate_and_another_list_count_at_once(broker: Broker) -> None:
    async def test() -> None:
        ask(broker, BEHIND, "throttled")
        assert have_records(ask(broker, BEHIND, "throttled")) == [False]
        broker.replicas.throttles.limit(1 << 20, 0)
        assert have_records(ask(broker, BEHIND, "throttled")) == [True]
        broker.replicas.throttles.limit(1, 0)
        assert have_records(ask(broker, BEHIND, "throttled")) == [False]
        image = broker.cluster.image
        states = (broker.replicas.partition("throttled", 0).image,)
        unlisted = replace(image.topics["throttled"], configs={}, partitions=states)
        broker.replicas.apply(replace(image, topics={**image.topics, "throttled": unlisted}))
        assert have_records(ask(broker, BEHIND, "throttled")) == [True]

    run(broker, test)


@pytest.mark.parametrize("name", ["", "1"])
@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_rate_set_while_the_broker_runs_reaches_the_quota_and_leaves_it_again(
    broker: Broker, side: str, name: str
) -> None:
    quota = getattr(broker.replicas.throttles, side)
    for operation, value, expected in ((SET, "77", 77), (DELETE, None, UNLIMITED_BYTES_PER_SECOND)):
        entry = AlterableConfig(f"{side}.replication.throttled.rate", operation, value)
        request = IncrementalAlterConfigsRequest([AlterConfigsResource(BROKER_RESOURCE, name, [entry])])
        (response,) = log_broker.ask(broker, incremental_alter_configs, request, 1).responses
        assert response.error_code == 0, response.error_message
        assert quota.bytes_per_second == expected


def test_appends_to_a_partition_that_is_held_back_end_no_wait(broker: Broker) -> None:
    async def test() -> None:
        ask(broker, BEHIND, "throttled")
        come = trio.Event()
        both: Pending[FetchResponse] = ask(broker, BEHIND, "throttled", "free", max_wait_ms=500, offset=1)
        both.deliver_to(lambda _: come.set())
        append(broker, "throttled", b"more")
        assert len(broker.replicas.purgatory) == 1
        append(broker, "free", b"more")
        assert len(broker.replicas.purgatory) == 0
        await come.wait()

    run(broker, test)


def test_a_wait_for_a_partition_that_is_held_back_ends_with_its_time(broker: Broker) -> None:
    async def test() -> None:
        come: list[list[bool]] = []
        ask(broker, BEHIND, "throttled")
        for max_wait_ms in (500, 2_000):
            pending: Pending[FetchResponse] = ask(broker, BEHIND, "throttled", max_wait_ms=max_wait_ms)
            pending.deliver_to(lambda response: come.append(have_records(response)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.replicas.purgatory.run)
            await trio.sleep(0.6)
            assert come == [[False]]
            await trio.sleep(1.5)
            nursery.cancel_scope.cancel()
        assert come == [[False], [True]]

    run(broker, test)


def test_records_that_were_read_twice_are_counted_once(broker: Broker) -> None:
    async def test() -> None:
        size_bytes = broker.replicas.partition("throttled", 0).log.size_bytes
        broker.replicas.throttles.limit(size_bytes, 0)
        come = trio.Event()
        pending: Pending[FetchResponse] = ask(broker, BEHIND, "throttled", max_wait_ms=500, min_bytes=1 << 20)
        pending.deliver_to(lambda _: come.set())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.replicas.purgatory.run)
            await come.wait()
            nursery.cancel_scope.cancel()
        assert broker.replicas.throttles.leader.exceeded_for_ms(500) == 0
        broker.replicas.throttles.sent(1)
        assert broker.replicas.throttles.leader.exceeded_for_ms(500) > 0

    run(broker, test)
