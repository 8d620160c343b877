"""The language of the group transcripts: runs one against a GroupShard and writes down what happens.

Actors stand for client processes (group_requests.py); member ids, which are random, are shown as actor.number. Beside
requests and what transcript.py knows:

    transaction <producer id> t-0=5       end-transaction <producer id> commit|abort       delete-topic <topic>
    coordinator loading|elsewhere|here    (what the shell answers before a request gets to its group)

A run remembers which moves of the table of transitions it has seen, and which error codes each API has answered.
"""

import random
import sys

from kpy.errors import ErrorCode
from kpy.group.answers import append_refusal, refusal
from kpy.group.events import Event, TopicsDeleted
from kpy.group.records import CommittedOffset, offset_record, read_group, read_key, read_offset
from kpy.group.shard import GroupShard
from kpy.group.transitions import Cause, GroupState
from kpy.group.turn import GroupConfig
from kpy.machine import NO_PRODUCER_ID, Effects, Request
from kpy.wire.delete_groups import DeleteGroupsResponse
from kpy.wire.describe_groups import DescribeGroupsResponse
from kpy.wire.group_records import OffsetCommitKey
from kpy.wire.join_group import JoinGroupResponse
from kpy.wire.leave_group import LeaveGroupResponse
from kpy.wire.offset_commit import OffsetCommitResponse
from kpy.wire.offset_delete import OffsetDeleteResponse
from kpy.wire.offset_fetch import OffsetFetchResponse
from kpy.wire.sync_group import SyncGroupResponse
from kpy.wire.txn_offset_commit import TxnOffsetCommitResponse
from tests.transcripts.group.group_requests import GROUP, REQUESTS, Actor
from tests.transcripts.transcript import Call, Transcript, Words, over_the_wire

TOPICS = {"t": 3, "u": 1}
"""The topics that exist, and how many partitions they have."""
UNAVAILABLE = {
    "loading": ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    "elsewhere": ErrorCode.NOT_COORDINATOR,
    "here": None,
}


class GroupTranscript(Transcript[GroupShard]):
    """One run, of members and others who ask about groups."""

    command_columns = 66

    def __init__(self) -> None:
        super().__init__()
        self.config = {"group_initial_rebalance_delay_ms": 0}
        self.log: list[tuple[bytes | None, bytes | None, int, bool]] = []
        self.actors: dict[str, Actor] = {}
        self.shown_ids: dict[str, str] = {}
        self.parked: dict[Call, str] = {}
        self.unavailable: ErrorCode | None = None
        self.moves: set[tuple[GroupState, Cause]] = set()
        self.errors: set[tuple[str, ErrorCode]] = set()
        """(API, an error code that it has answered)."""

    # -- effects -----------------------------------------------------------------------------------------------------

    def new_machine(self) -> GroupShard:
        return GroupShard(
            GroupConfig(**self.config), random.Random(1), lambda topic, index: index < TOPICS.get(topic, 0)
        )

    def handled(self, event: Event) -> Effects:
        """What the machine wants done, with the moves it made noted."""
        machine = self.machine()
        before = {group_id: group.state for group_id, group in machine.groups.items()}
        effects = machine.handle(event, self.now_ms)
        self.moves |= {(move.before, move.cause) for move in effects.notes}
        self.moves |= {(GroupState.DEAD, Cause.FIRST_USED) for each in machine.groups if each not in before}
        self.moves |= {(state, Cause.OVER) for each, state in before.items() if each not in machine.groups}
        return effects

    def replay(self, key: bytes, value: bytes | None, producer_id: int = -1) -> None:
        """Make a record count, and note the move that this is for its group."""
        machine, about = self.machine(), read_key(key)
        assert about is not None
        group = machine.groups.get(about.group)
        before = group.state if group is not None else GroupState.DEAD
        machine.replay(key, value, producer_id)
        group = machine.groups.get(about.group)
        if group is not None and before is GroupState.DEAD:
            self.moves.add((GroupState.DEAD, Cause.FIRST_USED))
            before = GroupState.EMPTY
        if group is None and before is not GroupState.DEAD:
            self.moves.add((before, Cause.OVER))
        elif group is not None and value is not None and not isinstance(about, OffsetCommitKey):
            self.moves.add((before, Cause.ASSIGNMENT_IN_LOG if group.members else Cause.NO_MEMBERS_IN_LOG))

    def write(self, key: bytes, value: bytes | None, producer_id: int) -> None:
        self.log.append((key, value, producer_id, False))
        self.replay(key, value, producer_id)

    def append_refusal(self, call: Call, error: ErrorCode) -> object:
        return append_refusal(call.message, call.version, error)

    # -- commands ----------------------------------------------------------------------------------------------------

    def carry_out(self, verb: str, words: Words) -> list[str]:
        if verb == "coordinator":
            self.unavailable = UNAVAILABLE[words.flags[0]]
            return []
        if verb == "delete-topic":
            return self.apply(self.handled(TopicsDeleted(frozenset(words.flags))))
        if verb == "transaction":
            for name, offset in words.options.items():
                topic, partition = name.rsplit("-", 1)
                committed = CommittedOffset(int(offset), -1, "", self.now_ms)
                self.write(*offset_record(GROUP, topic, int(partition), committed), int(words.flags[0]))
            return []
        if verb == "end-transaction":
            producer_id, commits = int(words.flags[0]), words.flags[1] == "commit"
            self.log.append((None, None, producer_id, commits))
            self.machine().replay_end_of_transaction(producer_id, committed=commits)
            return []
        actor, message, version = REQUESTS[verb](self.actors, words)
        call = Call(actor, message, version)
        self.parked[call] = verb
        client_id = actor.name if actor is not None else "admin"
        if self.unavailable is not None:
            return [self.answered(call, refusal(message, version, self.unavailable))]
        request = Request(message, version, client_id, f"/{client_id}", call)
        happened = self.apply(self.handled(request))
        if call in self.parked:
            happened.append("(parked)")
        return happened

    def restart(self) -> list[str]:
        """A new machine replays the log. What the old one had written it must know, no more and no less."""
        before = durable_state(self.machine(), self.log)
        self.shard = self.new_machine()
        for key, value, producer_id, commits in self.log:
            if key is None:
                self.shard.replay_end_of_transaction(producer_id, committed=commits)
            else:
                self.replay(key, value, producer_id)
        after = durable_state(self.shard, self.log)
        assert after == before, f"replay differs:\n{before}\n{after}"
        lost = [f"{call.name}: {verb} is lost" for call, verb in self.parked.items()]
        self.parked.clear()
        effects = self.machine().loaded(self.now_ms)
        self.moves |= {(move.before, move.cause) for move in effects.notes}
        return [*lost, *self.apply(effects), *self.state()]

    # -- words for what happened -------------------------------------------------------------------------------------

    def answered(self, call: Call, response: object) -> str:
        """What the client gets: the response after a trip over the wire in the version of its request."""
        del self.parked[call]
        self.errors |= {(type(call.message).__name__.removesuffix("Request"), error) for error in errors_in(response)}
        codec = sys.modules[type(response).__module__]
        return f"{call.name}: {self.told(call.actor, over_the_wire(codec, response, call.version))}"

    def shown(self, member_id: str) -> str:
        """A member id is the client's id, or the instance id, and 36 characters of randomness."""
        if member_id and member_id not in self.shown_ids:
            prefix = member_id[:-37]
            number = sum(shown.startswith(prefix + ".") for shown in self.shown_ids.values()) + 1
            self.shown_ids[member_id] = f"{prefix}.{number}"
        return self.shown_ids.get(member_id, '""')

    def told(self, actor: Actor | None, response: object) -> str:  # A table of kinds of answers.
        error = response.error_code if hasattr(response, "error_code") else 0
        if isinstance(response, JoinGroupResponse):
            assert actor is not None
            if error == ErrorCode.MEMBER_ID_REQUIRED:
                actor.member_id = response.member_id
                return f"MEMBER_ID_REQUIRED as {self.shown(response.member_id)}"
            if not error:
                actor.member_id, actor.generation_id = response.member_id, response.generation_id
                actor.protocol_name = response.protocol_name
                text = f"generation {response.generation_id} as {self.shown(response.member_id)}"
                text += f", {response.protocol_name}, leader {self.shown(response.leader)}"
                if response.members:
                    text += " of " + " ".join(self.shown(each.member_id) for each in response.members)
                return text + (", skip assignment" if response.skip_assignment else "")
        if error:
            return ErrorCode(error).name
        if isinstance(response, SyncGroupResponse):
            return "assigned " + (response.assignment.decode() or "nothing")
        if isinstance(response, LeaveGroupResponse) and response.members:
            return " ".join(ErrorCode(each.error_code).name for each in response.members)
        if isinstance(response, OffsetCommitResponse | TxnOffsetCommitResponse | OffsetDeleteResponse):
            return " ".join(
                f"{topic.name}-{each.partition_index} {ErrorCode(each.error_code).name}"
                for topic in response.topics
                for each in topic.partitions
            )
        if isinstance(response, OffsetFetchResponse):
            return self.offsets(response)
        if isinstance(response, DescribeGroupsResponse):
            return self.described(response)
        if isinstance(response, DeleteGroupsResponse):
            return ErrorCode(response.results[0].error_code).name
        return "NONE"

    def offsets(self, response: OffsetFetchResponse) -> str:
        if response.groups[0].error_code:
            return ErrorCode(response.groups[0].error_code).name
        shown: list[str] = []
        for topic in response.groups[0].topics:
            for each in topic.partitions:
                text = f"{topic.name}-{each.partition_index}="
                text += ErrorCode(each.error_code).name if each.error_code else str(each.committed_offset)
                text += f" ({each.metadata})" if each.metadata else ""
                shown.append(text)
        return " ".join(shown) or "no offsets"

    def described(self, response: DescribeGroupsResponse) -> str:
        group = response.groups[0]
        if group.error_code:
            return ErrorCode(group.error_code).name
        text = f"{group.group_state} type={group.protocol_type} protocol={group.protocol_data}"
        for each in group.members:
            instance = f" instance={each.group_instance_id}" if each.group_instance_id else ""
            assigned = f" has {each.member_assignment.decode()}" if each.member_assignment else ""
            text += f"; {self.shown(each.member_id)}{instance}{assigned}"
        return text

    def record(self, key: bytes, value: bytes | None, producer_id: int) -> str:
        of_producer = f" of producer {producer_id}" if producer_id != NO_PRODUCER_ID else ""
        return self.recorded(key, value) + of_producer

    def recorded(self, key: bytes, value: bytes | None) -> str:
        about = read_key(key)
        assert about is not None
        if isinstance(about, OffsetCommitKey):
            name = f"{about.topic}-{about.partition}"
            if value is None:
                return f"tombstone of offset {name}"
            committed = read_offset(value)
            expires = "" if committed.expire_timestamp_ms == -1 else f" until {committed.expire_timestamp_ms}"
            return f"offset {name}={committed.offset}{expires}"
        if value is None:
            return "tombstone of group " + (about.group or '""')
        read = read_group(value)
        members = " ".join(
            f"{self.shown(each.member_id)}={each.assignment.decode() or 'nothing'}" for each in read.members
        )
        leader = f", leader {self.shown(read.leader)}" if read.leader else ""
        return f"group {about.group}: generation {read.generation}{leader}, {members or 'no members'}"

    def state(self) -> list[str]:
        return [
            f"{group.group_id} is {group.state} in generation {group.generation_id}"
            for group in self.machine().groups.values()
        ] or ["no groups"]


def errors_in(response: object) -> set[ErrorCode]:
    """The error code of a response, or those of its parts."""
    if isinstance(response, list):
        return {error for each in response for error in errors_in(each)}
    slots: tuple[str, ...] = getattr(type(response), "__slots__", ())
    found = {error for name in slots for error in errors_in(getattr(response, name))}
    return found | {ErrorCode(response.error_code)} if "error_code" in slots else found


def replayed(machine: GroupShard, log: list[tuple[bytes | None, bytes | None, int, bool]]) -> GroupShard:
    for key, value, producer_id, commits in log:
        if key is None:
            machine.replay_end_of_transaction(producer_id, committed=commits)
        else:
            machine.replay(key, value, producer_id)
    return machine


def durable_state(machine: GroupShard, log: list[tuple[bytes | None, bytes | None, int, bool]]) -> object:
    """What of a machine survives: offsets of all groups, and groups that are not in a rebalance as they are.

    A group in a rebalance has run ahead of the log; of it counts what the log says, which a replay knows already.
    """
    ahead = {group.group_id for group in machine.groups.values() if group.state not in ("Stable", "Empty")}
    written = replayed(
        GroupShard(machine.config, random.Random(0), lambda topic, index: True),
        log,
    )
    groups = {}
    for group_id in machine.groups.keys() | written.groups.keys():
        group = (written if group_id in ahead else machine).groups.get(group_id)
        if group is None or not (group.in_log or machine.offsets.count(group_id)):
            continue
        groups[group_id] = (
            group.state,
            group.generation_id,
            group.protocol_type,
            group.protocol_name,
            group.leader_id,
            group.subscribed_topics,
            [
                (each.member_id, each.group_instance_id, each.client_id, each.rebalance_timeout_ms, each.assignment)
                for each in group.members.values()
            ],
        )
    offsets = {group_id: sorted(machine.offsets.of_group(group_id)) for group_id in machine.groups}
    return groups, {group_id: each for group_id, each in offsets.items() if each}
