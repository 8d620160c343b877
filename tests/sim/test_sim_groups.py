"""Consumers, a broker with real logs, and simulated time: groups form, lose members, move, and survive restarts.

A broker is opened on a directory without sockets, and consumers, which are tasks, call its handlers. The clock is
trio's MockClock, so minutes pass in milliseconds, and everything that is random comes from one seed.
"""

import random
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.find_coordinator import find_coordinator
from kpy.api.heartbeat import heartbeat
from kpy.api.join_group import join_group
from kpy.api.leave_group import leave_group
from kpy.api.list_groups import list_groups
from kpy.api.offset_commit import offset_commit
from kpy.api.offset_fetch import offset_fetch
from kpy.api.sync_group import sync_group
from kpy.config import BrokerConfig
from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.server import opened
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.list_groups import ListGroupsRequest
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

GROUP = "simulated"
TOPIC = "__consumer_offsets"
"""What the consumers commit offsets for: any topic that exists will do."""
PARTITIONS = range(6)
SESSION_MS = 10_000
REBALANCE_MS = 15_000
HEARTBEAT_S = 3
RETRY_S = 0.1
START_MS = 1_700_000_000_000


class World:
    """The one broker, as long as it is up, and what all consumers have seen of each generation."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.broker: Broker | None = None
        self.owners: dict[tuple[int, int, int], str] = {}
        """(life of the broker, generation, partition) -> member, of all assignments ever seen."""
        self.acknowledged: dict[int, int] = {}
        """partition -> the highest offset whose commit was answered well."""
        self.life = 0

    async def run_broker(self, lifetime_s: float) -> None:
        """One life of the broker. Its consumers find it again by asking."""
        self.life += 1
        config = BrokerConfig.of(
            {
                "log.dirs": str(self.directory),
                "listeners": "PLAINTEXT://127.0.0.1:0",
                "offsets.topic.num.partitions": str(len(PARTITIONS)),
            }
        )
        async with opened(config, now_ms) as opened_broker:
            broker = opened_broker.broker
            await broker.cluster.register({"PLAINTEXT": ("127.0.0.1", 1)}, {"PLAINTEXT": "PLAINTEXT"})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(broker.groups.run)
                self.broker = broker
                await trio.sleep(lifetime_s)
                self.broker = None
                nursery.cancel_scope.cancel()

    async def ask(self, handler: Callable[..., Any], request: Any, client: Client) -> Any:
        """A request's answer. None when the broker is away, or goes away before it has answered."""
        broker = self.broker
        if broker is None:
            return None
        answer = handler(request, client, broker)
        if isinstance(answer, Coroutine):
            return await cast("Coroutine[Any, Any, Any]", answer)
        if not isinstance(answer, Pending):
            return answer
        answered = trio.Event()
        responses: list[Any] = []

        def deliver(response: Any) -> None:
            responses.append(response)
            answered.set()

        answer.deliver_to(deliver)
        try:
            while self.broker is broker and not answered.is_set():
                with trio.move_on_after(RETRY_S):
                    await answered.wait()
        finally:
            answer.abandon()
        return responses[0] if responses else None


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1_000)


class Consumer:
    """A consumer of the classic protocol, which commits an ever higher offset for each partition it owns."""

    def __init__(self, world: World, name: str, instance_id: str | None) -> None:
        self.world = world
        self.client = Client("127.0.0.1", "PLAINTEXT")
        self.client.client_id = name
        self.client.version = 5 if instance_id is not None else 4
        self.instance_id = instance_id
        self.member_id = ""
        self.generation_id = -1
        self.owned: bytes = b""
        self.is_stable = False

    async def live(self, lifetime_s: float, leaves: bool) -> None:
        """Consume until time is up, then leave the group, or just fall silent."""
        with trio.move_on_after(lifetime_s):
            while True:
                await self.join()
                await self.consume()
        self.is_stable = False
        if leaves:
            members = [MemberIdentity(self.member_id, self.instance_id)]
            await self.ask(leave_group, LeaveGroupRequest(GROUP, self.member_id, members), 3)

    async def ask(self, handler: Callable[..., Any], request: Any, version: int | None = None) -> Any:
        normal = self.client.version
        self.client.version = normal if version is None else version
        try:
            return await self.world.ask(handler, request, self.client)
        finally:
            self.client.version = normal

    async def join(self) -> None:
        """Get into a generation and be assigned, however long it takes."""
        self.is_stable = False
        while True:
            await trio.sleep(RETRY_S)
            await self.ask(find_coordinator, FindCoordinatorRequest(key=GROUP), 3)
            protocols = [JoinGroupRequestProtocol("range", b"")]
            joined = await self.ask(
                join_group,
                JoinGroupRequest(
                    GROUP, SESSION_MS, REBALANCE_MS, self.member_id, self.instance_id, "connect", protocols
                ),
            )
            if joined is None:
                continue
            if joined.error_code:
                if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
                    self.member_id = joined.member_id
                elif joined.error_code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
                    self.member_id = ""
                continue
            self.member_id, self.generation_id = joined.member_id, joined.generation_id
            members = [each.member_id for each in joined.members]
            assignments = [
                SyncGroupRequestAssignment(member, bytes(PARTITIONS[index :: len(members)]))
                for index, member in enumerate(members)
            ]
            life = self.world.life
            sync = SyncGroupRequest(
                GROUP, self.generation_id, self.member_id, self.instance_id, assignments=assignments
            )
            synced = await self.ask(sync_group, sync, 3)
            if synced is not None and not synced.error_code:
                self.owned = bytes(synced.assignment)
                for partition in self.owned:
                    place = (life, self.generation_id, partition)
                    owner = self.world.owners.setdefault(place, self.identity)
                    assert owner == self.identity, f"{place} belongs to {owner} and to {self.identity}"
                self.is_stable = True
                return
            if synced is not None and synced.error_code == ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""

    @property
    def identity(self) -> str:
        """Who owns a partition: a static member that comes back is still the same."""
        return self.instance_id or self.member_id

    async def consume(self) -> None:
        """Heartbeat and commit until the group wants this member to join again."""
        while True:
            await trio.sleep(HEARTBEAT_S)
            answer = await self.ask(
                heartbeat, HeartbeatRequest(GROUP, self.generation_id, self.member_id, self.instance_id), 3
            )
            if answer is None:
                continue
            if answer.error_code:
                if answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID:
                    self.member_id = ""
                return
            await self.commit()

    async def commit(self) -> None:
        offsets = {partition: self.world.acknowledged.get(partition, 0) + 1 for partition in self.owned}
        partitions = [OffsetCommitRequestPartition(index, offset) for index, offset in offsets.items()]
        request = OffsetCommitRequest(
            group_id=GROUP,
            generation_id_or_member_epoch=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            topics=[OffsetCommitRequestTopic(name=TOPIC, partitions=partitions)],
        )
        answer = await self.ask(offset_commit, request, 7)
        for each in answer.topics[0].partitions if answer is not None else ():
            if not each.error_code:
                self.world.acknowledged[each.partition_index] = offsets[each.partition_index]


def simulate(world: World, main: Callable[[World], Awaitable[None]]) -> None:
    trio.run(main, world, clock=MockClock(autojump_threshold=0))


async def committed(world: World) -> dict[int, int]:
    asked = OffsetFetchRequest(GROUP, [OffsetFetchRequestTopic(TOPIC, list(PARTITIONS))])
    client = Client("127.0.0.1", "PLAINTEXT")
    client.version = 5
    answer = await world.ask(offset_fetch, asked, client)
    assert answer.error_code == ErrorCode.NONE
    return {each.partition_index: each.committed_offset for each in answer.topics[0].partitions}


def assert_all_is_owned_once(consumers: list[Consumer]) -> None:
    assert all(consumer.is_stable for consumer in consumers)
    assert len({consumer.generation_id for consumer in consumers}) == 1
    assert sorted(partition for consumer in consumers for partition in consumer.owned) == list(PARTITIONS)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_outlives_its_members_and_its_broker(tmp_path: Path, seed: int) -> None:
    async def main(world: World) -> None:
        chance = world.random
        survivors = [Consumer(world, "survivor-0", None), Consumer(world, "survivor-1", "static")]
        async with trio.open_nursery() as nursery:

            async def births() -> None:
                for number in range(12):
                    await trio.sleep(chance.uniform(0, 20))
                    consumer = Consumer(world, f"mortal-{number}", None)
                    nursery.start_soon(consumer.live, chance.uniform(0, 40), chance.random() < 0.5)

            for consumer in survivors:
                nursery.start_soon(consumer.live, 10_000, True)
            nursery.start_soon(births)
            for _ in range(3):
                await world.run_broker(chance.uniform(20, 90))
                await trio.sleep(chance.uniform(0, 5))
            nursery.start_soon(world.run_broker, 10_000)
            await trio.sleep(300)
            # All births and deaths are over, and sessions with them: the survivors own everything.
            assert_all_is_owned_once(survivors)
            assert await committed(world) == world.acknowledged
            nursery.cancel_scope.cancel()

    simulate(World(tmp_path, seed), main)


def test_committed_offsets_and_the_generation_survive_a_restart(tmp_path: Path) -> None:
    async def main(world: World) -> None:
        consumers = [Consumer(world, "a", None), Consumer(world, "b", None)]
        async with trio.open_nursery() as nursery:
            for consumer in consumers:
                nursery.start_soon(consumer.live, 10_000, False)
            await world.run_broker(60)
            generation_id = consumers[0].generation_id
            before = dict(world.acknowledged)
            assert set(before) == set(PARTITIONS)
            nursery.start_soon(world.run_broker, 10_000)
            await trio.sleep(1)
            shown = await committed(world)
            assert all(shown[partition] >= before[partition] for partition in PARTITIONS)
            await trio.sleep(30)
            # The broker was away for less than a session, so nobody had to join again.
            assert_all_is_owned_once(consumers)
            assert consumers[0].generation_id == generation_id
            nursery.cancel_scope.cancel()

    simulate(World(tmp_path, 1), main)


def test_a_static_member_that_is_away_for_less_than_its_session_disturbs_nobody(tmp_path: Path) -> None:
    async def main(world: World) -> None:
        steady, moving = Consumer(world, "steady", None), Consumer(world, "moving", "static")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run_broker, 10_000)
            nursery.start_soon(steady.live, 10_000, False)
            await moving.live(20, leaves=False)
            generation_id, owned = steady.generation_id, moving.owned
            await trio.sleep(5)
            again = Consumer(world, "moving", "static")
            nursery.start_soon(again.live, 10_000, False)
            await trio.sleep(10)
            assert_all_is_owned_once([steady, again])
            assert (steady.generation_id, again.owned) == (generation_id, owned)
            nursery.cancel_scope.cancel()

    simulate(World(tmp_path, 1), main)


def test_offsets_expire_a_week_after_the_group_became_empty_and_the_group_with_them(tmp_path: Path) -> None:
    async def main(world: World) -> None:
        client = Client("127.0.0.1", "PLAINTEXT")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run_broker, 10_000_000)
            await Consumer(world, "a", None).live(30, leaves=True)
            assert await committed(world) == world.acknowledged
            week_s = 7 * 24 * 60 * 60
            await trio.sleep(week_s - 60)
            assert await committed(world) == world.acknowledged
            await trio.sleep(60 + 600)
            assert set((await committed(world)).values()) == {-1}
            listed = await world.ask(list_groups, ListGroupsRequest(), client)
            assert (listed.error_code, listed.groups) == (ErrorCode.NONE, [])
            nursery.cancel_scope.cancel()

    simulate(World(tmp_path, 1), main)
