"""Random clients against one shard: whatever they do, and however they die, the group stays sound and comes to rest."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from kpy.errors import ErrorCode
from kpy.group.answers import append_refusal
from kpy.group.group import Group
from kpy.group.records import group_key
from kpy.group.shard import GroupShard
from kpy.group.transitions import GroupState
from kpy.group.turn import GroupConfig
from kpy.machine import Effects, Request, Tick
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse

GROUP = "g"
PARTITIONS = range(7)
SESSION_MS = 6_000
REBALANCE_MS = 9_000
STEPS = 300


@dataclass(eq=False)
class SimClient:
    """A consumer as the protocol wants it: joins, syncs, heartbeats, and believes what it is told."""

    name: str
    version: int
    instance_id: str | None
    protocols: list[str]
    member_id: str = ""
    generation_id: int = -1
    protocol_name: str | None = None
    at_least: int = 0
    """The lowest generation it may be told of: they only go back when a coordinator loses one it had not written."""
    members: list[str] = field(default_factory=list)
    """Whom it assigns to, if it leads."""
    wants: str = "join"
    waiting: object = None
    owned: frozenset[int] = frozenset()

    def next_request(self) -> object:
        if self.wants == "join":
            return JoinGroupRequest(
                group_id=GROUP,
                session_timeout_ms=SESSION_MS,
                rebalance_timeout_ms=REBALANCE_MS,
                member_id=self.member_id,
                group_instance_id=self.instance_id,
                protocol_type="connect",
                protocols=[JoinGroupRequestProtocol(name=name, metadata=b"") for name in self.protocols],
            )
        if self.wants == "sync":
            assignments = [
                SyncGroupRequestAssignment(member_id=member, assignment=bytes(PARTITIONS[index :: len(self.members)]))
                for index, member in enumerate(self.members)
            ]
            return SyncGroupRequest(
                group_id=GROUP,
                generation_id=self.generation_id,
                member_id=self.member_id,
                group_instance_id=self.instance_id,
                protocol_type="connect",
                protocol_name=self.protocol_name,
                assignments=assignments,
            )
        return HeartbeatRequest(
            group_id=GROUP,
            generation_id=self.generation_id,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
        )

    def is_told(self, response: object) -> None:
        error = response.error_code
        if isinstance(response, JoinGroupResponse):
            if error == ErrorCode.MEMBER_ID_REQUIRED:
                self.member_id = response.member_id
            elif error == ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""
            elif error == ErrorCode.FENCED_INSTANCE_ID:
                self.wants = "nothing"
            elif not error:
                assert response.generation_id >= self.at_least
                self.at_least = response.generation_id
                self.protocol_name = response.protocol_name
                self.member_id, self.generation_id = response.member_id, response.generation_id
                self.members = [] if response.skip_assignment else [each.member_id for each in response.members]
                self.owned = frozenset()
                self.wants = "sync"
        elif isinstance(response, SyncGroupResponse) and not error:
            self.owned = frozenset(response.assignment)
            self.wants = "heartbeat"
        elif error:
            self.wants = "nothing" if error == ErrorCode.FENCED_INSTANCE_ID else "join"
            if error == ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""


class World:
    """A shard, its log, and its clients."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        delay_ms = self.random.choice([0, 0, 1_000])
        self.config = GroupConfig(group_initial_rebalance_delay_ms=delay_ms, offsets_retention_ms=60_000)
        self.now_ms = 1_000
        self.log: list[tuple[bytes, bytes | None]] = []
        self.shard = self.new_shard()
        self.clients: list[SimClient] = []
        self.unanswered: dict[object, tuple[SimClient | None, object, int]] = {}
        self.append_works = True
        self.log_is_behind = False
        """The last record of the group could not be written, so the group is ahead of its log until the next one is."""
        self.highest_generation = 0

    def new_shard(self) -> GroupShard:
        return GroupShard(self.config, random.Random(self.random.random()), lambda topic, partition: True)

    def client_is_born(self) -> None:
        number = len(self.clients)
        instance_id = self.random.choice([None, None, f"static-{number % 3}"])
        protocols = self.random.choice([["range"], ["range", "sticky"], ["sticky", "range"]])
        self.clients.append(SimClient(f"c{number}", self.random.choice([3, 5, 9]), instance_id, protocols))

    def send(self, client: SimClient) -> None:
        self.ask(client, client.next_request(), client.version)

    def ask(self, client: SimClient | None, message: object, version: int) -> None:
        token = object()
        self.unanswered[token] = (client, message, version)
        if client is not None:
            client.waiting = token
        name = client.name if client is not None else "admin"
        self.carry_out(self.shard.handle(Request(message, version, name, "/host", token), self.now_ms))

    def carry_out(self, effects: Effects) -> None:
        written = self.append_works or not effects.records
        if any(key == group_key(GROUP) for key, _ in effects.records):
            self.log_is_behind = not written
        if written:
            for key, value in effects.records:
                self.log.append((key, value))
                self.shard.replay(key, value)
        for token, response in effects.replies:
            client, message, version = self.unanswered.pop(token)
            stands = written or effects.replies_stand
            if client is not None and client.waiting is token:
                client.waiting = None
                client.is_told(response if stands else append_refusal(message, version, ErrorCode.NOT_ENOUGH_REPLICAS))
        self.check()

    def pass_time(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while (deadline_ms := self.shard.next_deadline_ms()) is not None and deadline_ms <= end_ms:
            self.now_ms = max(self.now_ms, deadline_ms)
            self.carry_out(self.shard.handle(Tick(), self.now_ms))
        self.now_ms = end_ms

    def restart(self) -> None:
        """The coordinator moves: a new shard reads the log, and parked requests end with their connections."""
        self.shard = replayed(self.new_shard(), self.log)
        self.unanswered.clear()
        self.log_is_behind = False
        for client in self.clients:
            client.waiting, client.at_least = None, 0
        group = self.shard.groups.get(GROUP)
        self.highest_generation = group.generation_id if group is not None else 0
        self.carry_out(self.shard.loaded(self.now_ms))

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        for group in self.shard.groups.values():
            check_counters(group)
            assert group.generation_id >= self.highest_generation
            self.highest_generation = group.generation_id
        waiting = {waiting.token for waiting in self.shard.waiting()}
        assert waiting == self.unanswered.keys(), "a request is neither parked nor answered"
        self.check_owners()
        self.check_replay()

    def check_owners(self) -> None:
        """No partition has two owners in one generation, among members the group still knows."""
        group = self.shard.groups.get(GROUP)
        owners: dict[int, str] = {}
        for client in self.clients:
            if group is None or client.generation_id != group.generation_id or client.member_id not in group.members:
                continue
            if client.wants == "heartbeat":
                for partition in client.owned:
                    assert owners.setdefault(partition, client.member_id) == client.member_id

    def check_replay(self) -> None:
        """A group at rest is what its records say."""
        group = self.shard.groups.get(GROUP)
        if group is not None and group.state is GroupState.STABLE and not self.log_is_behind:
            again = replayed(self.new_shard(), self.log).groups[GROUP]
            assert described(again) == described(group)


def replayed(shard: GroupShard, log: list[tuple[bytes, bytes | None]]) -> GroupShard:
    for key, value in log:
        shard.replay(key, value)
    return shard


def described(group: Group) -> object:
    members = {
        member.member_id: (member.group_instance_id, member.assignment, member.session_timeout_ms)
        for member in group.members.values()
    }
    return group.state, group.generation_id, group.protocol_name, group.leader_id, group.state_timestamp_ms, members


def check_counters(group: Group) -> None:
    new = Group("of which nobody has heard")
    shared = (new.members, new.static_members, new.pending_members, new.pending_sync, new._support)
    assert not any(shared)
    members = group.members.values()
    assert group.awaiting_join == sum(member.join is not None for member in members)
    assert group.pending_sync <= group.members.keys()
    assert not group.pending_members & group.members.keys()
    assert (group.leader_id in group.members) if group.members else group.leader_id is None
    assert group.static_members == {
        member.group_instance_id: member.member_id for member in members if member.group_instance_id is not None
    }
    assert all(group.members[member.member_id] is member for member in members)
    assert (group.state is GroupState.EMPTY) <= (not group.members)
    if group.state in (GroupState.STABLE, GroupState.COMPLETING_REBALANCE):
        assert group.members
        assert all(group.protocol_name in member.protocols for member in members)
        assert all(member.join is None for member in members)
    if group.state is not GroupState.COMPLETING_REBALANCE:
        assert all(member.sync is None for member in members)


def random_steps(world: World) -> Iterator[None]:
    chance = world.random
    for _ in range(STEPS):
        what = chance.random()
        client = chance.choice(world.clients) if world.clients else None
        if client is None or (what < 0.05 and len(world.clients) < 8):
            world.client_is_born()
        elif what < 0.60:
            if client.waiting is None and client.wants != "nothing":
                world.send(client)
        elif what < 0.66:
            world.clients.remove(client)
            client.wants = "nothing"
        elif what < 0.70:
            # Its connection breaks and it sends the same again, while the old request is still parked.
            if client.waiting is not None:
                client.waiting = None
                world.send(client)
        elif what < 0.74:
            client.member_id, client.waiting, client.wants = "", None, "join"
        elif what < 0.77:
            identity = MemberIdentity(member_id=client.member_id, group_instance_id=client.instance_id)
            world.ask(None, LeaveGroupRequest(group_id=GROUP, members=[identity]), 5)
        elif what < 0.80:
            client.protocols = chance.choice([["range"], ["range", "sticky"], ["sticky", "range"]])
            if client.wants == "heartbeat":
                client.wants = "join"
        elif what < 0.85:
            partitions = [OffsetCommitRequestPartition(partition_index=chance.choice(PARTITIONS), committed_offset=5)]
            message = OffsetCommitRequest(
                group_id=GROUP,
                generation_id_or_member_epoch=client.generation_id,
                member_id=client.member_id,
                topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)],
            )
            world.ask(None, message, 9)
        elif what < 0.86:
            world.append_works = not world.append_works
        elif what < 0.87:
            world.restart()
        else:
            world.pass_time(chance.choice([1, 100, 1_000, 3_000]))
        yield


@pytest.mark.parametrize("seed", range(40))
def test_random_clients_keep_the_group_sound_and_it_comes_to_rest(seed: int) -> None:
    world = World(seed)
    for _ in random_steps(world):
        world.check()
    # From here on nothing fails any more: whoever lives must end up Stable, in one generation, owning everything once.
    world.append_works = True
    for client in world.clients:
        client.protocols = ["range", "sticky"]
    world.restart()
    for _ in range(200):
        for client in world.clients:
            if client.waiting is None and client.wants != "nothing":
                world.send(client)
        world.pass_time(500)
    live = [client for client in world.clients if client.wants != "nothing"]
    assert all(client.wants == "heartbeat" for client in live)
    if live:
        assert {client.generation_id for client in live} == {world.shard.groups[GROUP].generation_id}
        assert sorted(partition for client in live for partition in client.owned) == list(PARTITIONS)
    # And when all have died, time alone answers everybody, empties the group and forgets it.
    world.pass_time(4 * 600_000 + 60_000)
    assert not world.unanswered
    assert not world.shard.groups
    assert not replayed(world.new_shard(), world.log).groups
    assert world.shard.next_deadline_ms() is None


def test_the_same_seed_leads_to_the_same_log() -> None:
    logs: list[object] = []
    for _ in range(2):
        world = World(3)
        for _ in random_steps(world):
            pass
        logs.append(world.log)
    assert logs[0] == logs[1]
