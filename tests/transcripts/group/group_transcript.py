"""The language of the group transcripts: runs one against a GroupShard and writes down what happens.

Each line is `at <ms>  <command>`, and after `->` what followed: the records appended, and who was answered what. Actors
stand for client processes; an actor remembers the member id and the generation it was told. Lines without a command are
time passing: they appear where a deadline did something. Member ids, which are random, are shown as actor.number.

    config group_initial_rebalance_delay_ms=3000         (first lines only)
    join <actor> [v=9] [new] [instance=a] [session=10000] [rebalance=60000] [protocols=range,sticky] [topics=t]
    sync <actor> [<actor>=<assignment> ...] [generation=1] [protocol=range]
    heartbeat <actor> [generation=1] [instance=a]      leave <actor> [v=5] [instance=a,b]
    commit <actor> t-0=5 [generation=1] [metadata=x] [retention=1000] [v=8]      (actor - is nobody's member)
    txn-commit <actor> t-0=5 producer=7 [generation=1] [member=m] [instance=a] [metadata-bytes=9] [v=4]
    fetch [all] [stable] [t-0 ...] [v=9]               forget-offsets t-0
    describe [v=6]     list [states=a,b] [types=classic]     delete
    transaction <producer id> t-0=5                    end-transaction <producer id> commit|abort
    fail-append <error>     delete-topic <topic>       restart     wait
    coordinator loading|elsewhere|here                 (what the shell answers before a request gets to its group)

Requests take group=<id> for a group other than g, and reason=<word>. A run remembers which moves of the table of
transitions it has seen, and which error codes each API has answered.
"""

import random
import re
import sys
from dataclasses import dataclass, field

from kpy.errors import ErrorCode
from kpy.group.answers import append_refusal, refusal
from kpy.group.events import Event, TopicsDeleted
from kpy.group.records import CommittedOffset, offset_record, read_group, read_key, read_offset
from kpy.group.shard import GroupShard
from kpy.group.transitions import Cause, GroupState
from kpy.group.turn import GroupConfig
from kpy.machine import NO_PRODUCER_ID, Effects, Request, Tick
from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription
from kpy.wire.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from kpy.wire.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from kpy.wire.group_records import OffsetCommitKey
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from kpy.wire.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from kpy.wire.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse,
)

GROUP = "g"
TOPICS = {"t": 3, "u": 1}
"""The topics that exist, and how many partitions they have."""
COMMAND_COLUMNS = 66
UNAVAILABLE = {
    "loading": ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    "elsewhere": ErrorCode.NOT_COORDINATOR,
    "here": None,
}


@dataclass
class Actor:
    name: str
    member_id: str = ""
    generation_id: int = -1
    instance_id: str | None = None
    protocol_name: str | None = None


@dataclass(eq=False)
class Call:
    """The token of a request: whose it is."""

    actor: Actor | None
    message: object
    version: int


@dataclass
class Words:
    """A command's words: flags, options, and what has a dash or a dot in it."""

    flags: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: list[str]) -> "Words":
        found = cls()
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                found.options[name] = value
            else:
                found.flags.append(name)
        return found

    @property
    def group(self) -> str:
        return self.options.get("group", GROUP)

    def number(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))

    def names(self, name: str) -> list[str]:
        return [each for each in self.options.get(name, "").split(",") if each]


class Transcript:
    """One run. `lines` is the transcript as it turned out."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.config: dict[str, int] = {"group_initial_rebalance_delay_ms": 0}
        self.shard: GroupShard | None = None
        self.log: list[tuple[bytes | None, bytes | None, int, bool]] = []
        self.actors: dict[str, Actor] = {}
        self.shown_ids: dict[str, str] = {}
        self.parked: dict[Call, str] = {}
        self.failing: ErrorCode | None = None
        self.unavailable: ErrorCode | None = None
        self.moves: set[tuple[GroupState, Cause]] = set()
        self.errors: set[tuple[str, ErrorCode]] = set()
        """(API, an error code that it has answered)."""
        self.lines: list[str] = []

    def run(self, text: str) -> str:
        for line in text.splitlines():
            match = re.match(r"at (\d+) +(.*?) *(?:->.*)?$", line)
            if line.startswith("#") or not line.strip():
                self.lines.append(line)
            elif line.startswith("config "):
                self.lines.append(line)
                self.config |= {name: int(value) for name, value in Words.of(line.split()[1:]).options.items()}
            elif match is not None and match[2]:
                self.until(int(match[1]))
                self.note(match[2], self.carry_out(match[2]))
        return "\n".join(self.lines) + "\n"

    # -- time and effects --------------------------------------------------------------------------------------------

    def machine(self) -> GroupShard:
        if self.shard is None:
            self.shard = self.new_machine()
        return self.shard

    def new_machine(self) -> GroupShard:
        return GroupShard(
            GroupConfig(**self.config), random.Random(1), lambda topic, index: index < TOPICS.get(topic, 0)
        )

    def until(self, now_ms: int) -> None:
        """Let deadlines pass one by one, and show those that do something."""
        while (deadline_ms := self.machine().next_deadline_ms()) is not None and deadline_ms <= now_ms:
            self.now_ms = deadline_ms
            happened = self.apply(self.handled(Tick()))
            if happened:
                self.note("", happened)
        self.now_ms = now_ms

    def note(self, command: str, happened: list[str]) -> None:
        left = f"at {self.now_ms:<8}{command}"
        if not happened:
            self.lines.append(left)
        for text in happened:
            self.lines.append(f"{left:<{COMMAND_COLUMNS}} -> {text}")
            left = ""

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

    def apply(self, effects: Effects) -> list[str]:
        happened: list[str] = []
        failing, self.failing = (self.failing, None) if effects.records else (None, self.failing)
        if failing is not None:
            happened.append(f"append fails: {failing.name}")
            for reply in effects.replies:
                call = reply.token
                assert isinstance(call, Call)
                refused = append_refusal(call.message, call.version, failing)
                happened.append(self.answered(call, reply.response if effects.replies_stand else refused))
            return happened
        for key, value in effects.records:
            self.log.append((key, value, effects.producer_id, False))
            self.replay(key, value, effects.producer_id)
            of_producer = f" of producer {effects.producer_id}" if effects.producer_id != NO_PRODUCER_ID else ""
            happened.append("append " + self.record(key, value) + of_producer)
        for reply in effects.replies:
            assert isinstance(reply.token, Call)
            happened.append(self.answered(reply.token, reply.response))
        return happened

    # -- commands ----------------------------------------------------------------------------------------------------

    def carry_out(self, command: str) -> list[str]:
        verb, *rest = command.split()
        words = Words.of(rest)
        if verb == "wait":
            return []
        if verb == "restart":
            return self.restart()
        if verb == "fail-append":
            self.failing = ErrorCode[words.flags[0]]
            return []
        if verb == "coordinator":
            self.unavailable = UNAVAILABLE[words.flags[0]]
            return []
        if verb == "delete-topic":
            return self.apply(self.handled(TopicsDeleted(frozenset(words.flags))))
        if verb == "transaction":
            for name, offset in words.options.items():
                topic, partition = name.rsplit("-", 1)
                committed = CommittedOffset(int(offset), -1, "", self.now_ms)
                key, value = offset_record(GROUP, topic, int(partition), committed)
                self.log.append((key, value, int(words.flags[0]), False))
                self.replay(key, value, int(words.flags[0]))
            return []
        if verb == "end-transaction":
            producer_id, commits = int(words.flags[0]), words.flags[1] == "commit"
            self.log.append((None, None, producer_id, commits))
            self.machine().replay_end_of_transaction(producer_id, committed=commits)
            return []
        build = getattr(self, verb.replace("-", "_"))
        actor, message, version = build(words)
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
        lost = [f"{self.name(call.actor)}: {verb} is lost" for call, verb in self.parked.items()]
        self.parked.clear()
        effects = self.machine().loaded(self.now_ms)
        self.moves |= {(move.before, move.cause) for move in effects.notes}
        return [*lost, *self.apply(effects), *self.state()]

    def join(self, words: Words) -> tuple[Actor, object, int]:
        actor = self.actor(words)
        if "new" in words.flags:
            actor.member_id = ""
        actor.instance_id = words.options.get("instance")
        topics = words.names("topics") or ["t"]
        subscription = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(topics=topics), 1)
        return (
            actor,
            JoinGroupRequest(
                group_id=words.group,
                session_timeout_ms=words.number("session", 10_000),
                rebalance_timeout_ms=words.number("rebalance", 60_000),
                member_id=actor.member_id,
                group_instance_id=actor.instance_id,
                protocol_type=words.options.get("type", "consumer"),
                protocols=[
                    JoinGroupRequestProtocol(name=name, metadata=subscription)
                    for name in words.options.get("protocols", "range").split(",")
                    if name
                ],
                reason=words.options.get("reason"),
            ),
            words.number("v", 9),
        )

    def sync(self, words: Words) -> tuple[Actor, object, int]:
        actor = self.actor(words)
        assignments = [
            SyncGroupRequestAssignment(member_id=self.actors[name].member_id, assignment=value.encode())
            for name, value in words.options.items()
            if name in self.actors
        ]
        return (
            actor,
            SyncGroupRequest(
                group_id=words.group,
                generation_id=words.number("generation", actor.generation_id),
                member_id=actor.member_id,
                group_instance_id=actor.instance_id,
                protocol_type=words.options.get("type", "consumer"),
                protocol_name=words.options.get("protocol", actor.protocol_name),
                assignments=assignments,
            ),
            words.number("v", 5),
        )

    def heartbeat(self, words: Words) -> tuple[Actor, object, int]:
        actor = self.actor(words)
        message = HeartbeatRequest(
            group_id=words.group,
            generation_id=words.number("generation", actor.generation_id),
            member_id=actor.member_id,
            group_instance_id=actor.instance_id,
        )
        return actor, message, words.number("v", 4)

    def leave(self, words: Words) -> tuple[Actor | None, object, int]:
        version = words.number("v", 5)
        instances = words.names("instance")
        members = [MemberIdentity(member_id="", group_instance_id=each) for each in instances]
        actors = [self.actors[name] for name in words.flags]
        reason = words.options.get("reason")
        members += [MemberIdentity(each.member_id, each.instance_id, reason) for each in actors]
        message = LeaveGroupRequest(group_id=words.group, member_id=members[0].member_id, members=members)
        return (actors[0] if actors else None), message, version

    def commit(self, words: Words) -> tuple[Actor | None, object, int]:
        actor = None if words.flags[0] == "-" else self.actor(words)
        topics: dict[str, list[OffsetCommitRequestPartition]] = {}
        for name, offset in words.options.items():
            if "-" in name:
                topic, partition = name.rsplit("-", 1)
                topics.setdefault(topic, []).append(
                    OffsetCommitRequestPartition(
                        partition_index=int(partition),
                        committed_offset=int(offset),
                        committed_leader_epoch=words.number("epoch", -1),
                        committed_metadata=words.options.get("metadata"),
                    )
                )
        message = OffsetCommitRequest(
            group_id=words.group,
            generation_id_or_member_epoch=words.number("generation", actor.generation_id if actor else -1),
            member_id=actor.member_id if actor else "",
            group_instance_id=actor.instance_id if actor else None,
            retention_time_ms=words.number("retention", -1),
            topics=[OffsetCommitRequestTopic(name=topic, partitions=each) for topic, each in topics.items()],
        )
        return actor, message, words.number("v", 9)

    def txn_commit(self, words: Words) -> tuple[Actor | None, object, int]:
        actor = None if words.flags[0] == "-" else self.actor(words)
        topics: dict[str, list[TxnOffsetCommitRequestPartition]] = {}
        for name, offset in words.options.items():
            if re.fullmatch(r"[a-z]-\d", name):
                topic, partition = name.rsplit("-", 1)
                metadata = "x" * words.number("metadata-bytes", 0)
                each = TxnOffsetCommitRequestPartition(int(partition), int(offset), -1, metadata)
                topics.setdefault(topic, []).append(each)
        message = TxnOffsetCommitRequest(
            transactional_id="tx",
            group_id=GROUP,
            producer_id=words.number("producer", 7),
            producer_epoch=0,
            generation_id=words.number("generation", actor.generation_id if actor else -1),
            member_id=words.options.get("member", actor.member_id if actor else ""),
            group_instance_id=words.options.get("instance", actor.instance_id if actor else None),
            topics=[TxnOffsetCommitRequestTopic(topic, each) for topic, each in topics.items()],
        )
        return actor, message, words.number("v", 4)

    def fetch(self, words: Words) -> tuple[None, object, int]:
        topics: dict[str, list[int]] = {}
        for name in words.flags:
            if "-" in name:
                topic, partition = name.rsplit("-", 1)
                topics.setdefault(topic, []).append(int(partition))
        asked = [OffsetFetchRequestTopics(name=topic, partition_indexes=each) for topic, each in topics.items()]
        group = OffsetFetchRequestGroup(group_id=words.group, topics=None if "all" in words.flags else asked)
        return None, OffsetFetchRequest(groups=[group], require_stable="stable" in words.flags), 9

    def forget_offsets(self, words: Words) -> tuple[None, object, int]:
        topics = [
            OffsetDeleteRequestTopic(
                name=name.rsplit("-", 1)[0],
                partitions=[OffsetDeleteRequestPartition(partition_index=int(name.rsplit("-", 1)[1]))],
            )
            for name in words.flags
        ]
        return None, OffsetDeleteRequest(group_id=words.group, topics=topics), 0

    def describe(self, words: Words) -> tuple[None, object, int]:
        return None, DescribeGroupsRequest(groups=[words.group]), words.number("v", 5)

    def delete(self, words: Words) -> tuple[None, object, int]:
        return None, DeleteGroupsRequest(groups_names=[words.group]), words.number("v", 2)

    def actor(self, words: Words) -> Actor:
        name = words.flags[0]
        return self.actors.setdefault(name, Actor(name))

    # -- words for what happened -------------------------------------------------------------------------------------

    def answered(self, call: Call, response: object) -> str:
        """What the client gets: the response after a trip over the wire in the version of its request."""
        del self.parked[call]
        self.errors |= {(type(call.message).__name__.removesuffix("Request"), error) for error in errors_in(response)}
        codec = sys.modules[type(response).__module__]
        sent = b"".join(bytes(each) for each in codec.encode_response(response, call.version))
        return (
            f"{self.name(call.actor)}: {self.told(call.actor, codec.decode_response(memoryview(sent), call.version))}"
        )

    def name(self, actor: Actor | None) -> str:
        return actor.name if actor is not None else "admin"

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

    def record(self, key: bytes, value: bytes | None) -> str:
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
