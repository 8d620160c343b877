"""One partition of __consumer_offsets as a state machine: the groups and the committed offsets that live in it.

Theory of operation. `handle` judges an event against the present state and says what should follow; `replay` is what
makes records count, once they are in the log: it alone changes committed offsets and assignments, makes a group
Stable, and ends it. Loading after a restart or an election is the same replay over the whole partition, then
`loaded`. So a shard is always what its log says, plus the soft state of rebalances under way (see
kpy/group/classic.py), which dies with it.

A shard without groups arms no deadline and holds next to nothing. Kafka class GroupCoordinatorShard.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from kpy.errors import ErrorCode
from kpy.group.answers import join_error, refusal, sync_error
from kpy.group.classic import leave_unknown_group, member_heartbeats, member_joins, member_syncs, members_leave
from kpy.group.events import Event, TopicsDeleted
from kpy.group.group import UNKNOWN_MEMBER_ID, Group, Member, Waiting
from kpy.group.offsets import (
    Offsets,
    PartitionExists,
    commit_in_transaction,
    commit_offsets,
    delete_offsets,
    expired,
    fetch_offsets,
    may_commit,
    may_commit_in_transaction,
    tombstones_of_all,
    tombstones_of_topics,
)
from kpy.group.rebalance import (
    arm_session,
    join_time_is_up,
    join_timer,
    prepare_rebalance,
    session_time_is_up,
    session_timer,
    sync_time_is_up,
    sync_timer,
)
from kpy.group.records import (
    group_tombstone,
    offset_tombstone,
    read_group,
    read_key,
    read_offset,
    subscribed_topics,
)
from kpy.group.transitions import TRANSITIONS, Cause, GroupState
from kpy.group.turn import MAX_GROUPS, GroupConfig, TimerKey, Turn
from kpy.machine import NO_PRODUCER_ID, Effects, Request, Tick
from kpy.timers import Timers
from kpy.wire.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse
from kpy.wire.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from kpy.wire.group_records import GroupMetadataValue, MemberMetadata, OffsetCommitKey
from kpy.wire.heartbeat import HeartbeatRequest, HeartbeatResponse
from kpy.wire.join_group import JoinGroupRequest
from kpy.wire.leave_group import LeaveGroupRequest
from kpy.wire.list_groups import ListedGroup
from kpy.wire.offset_commit import OffsetCommitRequest
from kpy.wire.offset_delete import OffsetDeleteRequest
from kpy.wire.offset_fetch import OffsetFetchRequest
from kpy.wire.sync_group import SyncGroupRequest
from kpy.wire.txn_offset_commit import TxnOffsetCommitRequest

SWEEP_TIMER: TimerKey = ("sweep", "", "")
TOMBSTONES_A_SWEEP = 1_000
GROUPS_A_SWEEP = 1_000
"""A sweep that has made or seen this many goes on a moment later, so that other work is not held up."""
GROUP_TYPE = "classic"
MAX_ID_IN_MESSAGE = 1_000
"""How much of a group id an error message repeats: the longest id and the words around it do not fit a string."""
NO_REBALANCE_TIMEOUT = -1
"""GroupMetadataValue version 0 has none: the session timeout stands for it."""
GROUP_ID_NOT_FOUND_IN_DESCRIBE_SINCE = 6


class GroupShard:
    """The groups of one partition of __consumer_offsets."""

    def __init__(self, config: GroupConfig, rng: random.Random, partition_exists: PartitionExists) -> None:
        self.config = config
        self.groups: dict[str, Group] = {}
        self.offsets = Offsets()
        self._rng = rng
        self._partition_exists = partition_exists
        self._timers: Timers[TimerKey] = Timers()
        self._to_sweep: list[str] = []
        """Groups that the sweep under way has still to look at."""

    def __len__(self) -> int:
        return len(self.groups)

    def next_deadline_ms(self) -> int | None:
        """When to hand over the next Tick, at the latest; None when nothing is due of itself."""
        return self._timers.next_deadline_ms()

    def handle(self, event: Event, now_ms: int) -> Effects:
        turn = Turn(now_ms, self.config, self._rng, self._timers)
        if isinstance(event, Tick):
            self._time_has_passed(turn)
        elif isinstance(event, TopicsDeleted):
            turn.effects.append(tombstones_of_topics(self.offsets, event.names))
        elif type(event.message) in WANT_A_NAME and event.message.group_id == "":
            turn.effects.reply(event.token, refusal(event.message, event.version, ErrorCode.INVALID_GROUP_ID))
        else:
            HANDLERS[type(event.message)](self, turn, event)
        # Records may make the first group of this shard when they are replayed.
        if (self.groups or turn.effects.records) and self._timers.deadline_ms(SWEEP_TIMER) is None:
            self._timers.arm(SWEEP_TIMER, now_ms + self.config.offsets_retention_check_interval_ms)
        return turn.effects

    # -- requests ----------------------------------------------------------------------------------------------------

    def join(self, turn: Turn, request: Request) -> None:
        message: JoinGroupRequest = request.message
        error = ErrorCode.NONE
        group = self.groups.get(message.group_id)
        limits = self.config
        if not limits.group_min_session_timeout_ms <= message.session_timeout_ms <= limits.group_max_session_timeout_ms:
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        elif group is None and message.member_id != UNKNOWN_MEMBER_ID:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        elif group is None and len(self.groups) >= MAX_GROUPS:
            error = ErrorCode.POLICY_VIOLATION
        if error:
            turn.effects.reply(request.token, join_error(request.version, error, message.member_id))
            return
        group = group or Group(message.group_id, state_timestamp_ms=turn.now_ms)
        member_joins(turn, group, request)
        if group.members or group.pending_members:
            self.groups[group.group_id] = group

    def sync(self, turn: Turn, request: Request) -> None:
        message: SyncGroupRequest = request.message
        group = self.groups.get(message.group_id)
        if group is None:
            turn.effects.reply(request.token, sync_error(ErrorCode.UNKNOWN_MEMBER_ID))
        else:
            member_syncs(turn, group, request)

    def heartbeat(self, turn: Turn, request: Request) -> None:
        message: HeartbeatRequest = request.message
        group = self.groups.get(message.group_id)
        if group is None:
            turn.effects.reply(request.token, HeartbeatResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID))
        else:
            member_heartbeats(turn, group, request)

    def leave(self, turn: Turn, request: Request) -> None:
        message: LeaveGroupRequest = request.message
        group = self.groups.get(message.group_id)
        if group is None:
            turn.effects.reply(request.token, leave_unknown_group(request))
        else:
            members_leave(turn, group, request)

    def commit(self, turn: Turn, request: Request) -> None:
        """A commit without a generation makes a simple group: one that is its offsets, and never has members."""
        message: OffsetCommitRequest = request.message
        group = self.groups.get(message.group_id)
        refused = may_commit(group, message)
        if group is None and not refused and len(self.groups) >= MAX_GROUPS:
            refused = ErrorCode.POLICY_VIOLATION
        member = group.members.get(message.member_id) if group is not None else None
        if group is not None and member is not None and not refused:
            arm_session(turn, group, member)
        commit_offsets(turn, request, refused, self._partition_exists)

    def commit_in_transaction(self, turn: Turn, request: Request) -> None:
        """Offsets that a producer commits in its transaction; the end of that makes them count, or forgotten."""
        message: TxnOffsetCommitRequest = request.message
        group = self.groups.get(message.group_id)
        refused = may_commit_in_transaction(group, message)
        if group is None and not refused and len(self.groups) >= MAX_GROUPS:
            refused = ErrorCode.POLICY_VIOLATION
        commit_in_transaction(turn, request, refused, self._partition_exists)

    def fetch(self, turn: Turn, request: Request) -> None:
        fetch_offsets(turn, self.offsets, request)

    def delete_offsets(self, turn: Turn, request: Request) -> None:
        message: OffsetDeleteRequest = request.message
        group = self.groups.get(message.group_id)
        delete_offsets(turn, self.offsets, group, request, self._partition_exists)
        gone = {key for key, _ in turn.effects.records}
        if group is not None and gone and self._is_over(group, len(gone)):
            turn.effects.append([group_tombstone(group.group_id)])

    def describe(self, turn: Turn, request: Request) -> None:
        message: DescribeGroupsRequest = request.message
        described = [self._described(group_id, request.version) for group_id in message.groups]
        turn.effects.reply(request.token, DescribeGroupsResponse(groups=described))

    def delete(self, turn: Turn, request: Request) -> None:
        """A group that nobody is a member of can be deleted, with all of its offsets."""
        message: DeleteGroupsRequest = request.message
        results: list[DeletableGroupResult] = []
        for group_id in message.groups_names:
            group = self.groups.get(group_id)
            error = ErrorCode.NONE
            if group is None:
                error = ErrorCode.GROUP_ID_NOT_FOUND
            elif group.state is not GroupState.EMPTY:
                error = ErrorCode.NON_EMPTY_GROUP
            else:
                turn.effects.append(tombstones_of_all(self.offsets, group_id))
                turn.effects.append([group_tombstone(group_id)])
            results.append(DeletableGroupResult(group_id=group_id, error_code=error))
        turn.effects.reply(request.token, DeleteGroupsResponse(results=results))

    def _described(self, group_id: str, version: int) -> DescribedGroup:
        """Protocol, metadata and assignment are shown of a Stable group: in other states they are about to change."""
        group = self.groups.get(group_id)
        if group is None:
            if version < GROUP_ID_NOT_FOUND_IN_DESCRIBE_SINCE:
                return DescribedGroup(group_id=group_id, group_state=GroupState.DEAD)
            return DescribedGroup(
                error_code=ErrorCode.GROUP_ID_NOT_FOUND,
                error_message=f"Group {group_id[:MAX_ID_IN_MESSAGE]} not found.",
                group_id=group_id,
                group_state=GroupState.DEAD,
            )
        protocol = group.protocol_name if group.state is GroupState.STABLE else None
        return DescribedGroup(
            group_id=group_id,
            group_state=group.state,
            protocol_type=group.protocol_type or "",
            protocol_data=protocol or "",
            members=[
                DescribedGroupMember(
                    member_id=each.member_id,
                    group_instance_id=each.group_instance_id,
                    client_id=each.client_id,
                    client_host=each.client_host,
                    member_metadata=each.protocols[protocol] if protocol is not None else b"",
                    member_assignment=each.assignment if protocol is not None else b"",
                )
                for each in group.members.values()
            ],
        )

    def listed(self, states: Sequence[str], types: Sequence[str]) -> list[ListedGroup]:
        """The groups in one of these states and of one of these types, in any case of letters; empty means all."""
        wanted_states = {state.strip().lower() for state in states}
        if types and GROUP_TYPE not in {each.strip().lower() for each in types}:
            return []
        return [
            ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state,
                group_type=GROUP_TYPE,
            )
            for group in self.groups.values()
            if not wanted_states or group.state.lower() in wanted_states
        ]

    def waiting(self) -> Iterator[Waiting]:
        """Every parked request, for a coordinator that lets go of this shard."""
        for group in self.groups.values():
            for member in group.members.values():
                yield from (waiting for waiting in (member.join, member.sync) if waiting is not None)

    # -- time --------------------------------------------------------------------------------------------------------

    def _time_has_passed(self, turn: Turn) -> None:
        while (due := self._timers.pop_due(turn.now_ms)) is not None:
            what, group_id, member_id = due
            if what == "sweep":
                self._sweep(turn)
            elif what == "session":
                session_time_is_up(turn, self.groups[group_id], member_id)
            elif what == "join":
                join_time_is_up(turn, self.groups[group_id])
            else:
                sync_time_is_up(turn, self.groups[group_id])

    def _sweep(self, turn: Turn) -> None:
        """Forget offsets that have expired, and groups that have neither members nor offsets any more."""
        if not self._to_sweep:
            self._to_sweep = list(self.groups)
            self._to_sweep.reverse()
        for _ in range(min(len(self._to_sweep), GROUPS_A_SWEEP)):
            if len(turn.effects.records) >= TOMBSTONES_A_SWEEP:
                break
            group = self.groups.get(self._to_sweep.pop())
            if group is None:
                continue
            gone = expired(self.offsets, group, turn.now_ms, self.config.offsets_retention_ms)
            turn.effects.append(offset_tombstone(group.group_id, topic, partition) for topic, partition in gone)
            if not self._is_over(group, len(gone)):
                continue
            if group.in_log or gone:
                turn.effects.append([group_tombstone(group.group_id)])
            else:
                del self.groups[group.group_id]
        if self._to_sweep:
            self._timers.arm(SWEEP_TIMER, turn.now_ms + 1)

    def _is_over(self, group: Group, offsets_gone: int) -> bool:
        """Whether nothing is left of a group, once `offsets_gone` of its offsets are."""
        has_members = group.state is not GroupState.EMPTY or bool(group.pending_members)
        has_offsets = offsets_gone < self.offsets.count(group.group_id)
        return not has_members and not has_offsets and not self.offsets.has_open_transaction(group.group_id)

    # -- replay ------------------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None, producer_id: int = NO_PRODUCER_ID) -> None:
        """Make one record of the log count. Records of kinds that kpy does not keep are passed over.

        Raises WireError for a record that is not what its version says.
        """
        about = read_key(key)
        if about is None:
            return
        if isinstance(about, OffsetCommitKey):
            if value is None:
                self.offsets.remove(about.group, about.topic, about.partition)
            else:
                committed = read_offset(value)
                if about.group not in self.groups:
                    self.groups[about.group] = Group(about.group)
                self.offsets.put(about.group, about.topic, about.partition, committed, producer_id)
        elif value is None:
            self._forget(about.group)
        else:
            self._replay_group(about.group, read_group(value))

    def replay_end_of_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Make the end marker of a transaction count."""
        self.offsets.end_transaction(producer_id, committed=committed)

    def loaded(self, now_ms: int) -> Effects:
        """The whole log has been replayed. From now on members have their session timeout to be heard of."""
        turn = Turn(now_ms, self.config, self._rng, self._timers)
        for group in self.groups.values():
            for member in group.members.values():
                arm_session(turn, group, member)
            if len(group.members) > self.config.group_max_size:
                prepare_rebalance(turn, group, Cause.ABOVE_MAX_SIZE)
        if self.groups:
            self._timers.arm(SWEEP_TIMER, now_ms + self.config.offsets_retention_check_interval_ms)
        return turn.effects

    def _replay_group(self, group_id: str, value: GroupMetadataValue) -> None:
        """Members that are known keep what the record does not say: their other protocols, and what they wait for."""
        group = self.groups.setdefault(group_id, Group(group_id))
        written = {each.member_id for each in value.members}
        for member_id in [each for each in group.members if each not in written]:
            group.remove(member_id)
        group.protocol_type = value.protocol_type or None
        for each in value.members:
            self._replay_member(group, each, value.protocol or "")
        group.generation_id = value.generation
        group.protocol_name = value.protocol
        group.leader_id = value.leader if value.leader in group.members else next(iter(group.members), None)
        group.subscribed_topics = subscribed_topics(group)
        cause = Cause.ASSIGNMENT_IN_LOG if group.members else Cause.NO_MEMBERS_IN_LOG
        group.state = TRANSITIONS[group.state][cause]
        group.state_timestamp_ms = None if value.current_state_timestamp == -1 else value.current_state_timestamp
        group.initial_delay_left_ms = None
        group.in_log = True

    def _replay_member(self, group: Group, written: MemberMetadata, protocol: str) -> None:
        protocols = {protocol: bytes(written.subscription)}
        rebalance_timeout_ms = written.rebalance_timeout
        if rebalance_timeout_ms == NO_REBALANCE_TIMEOUT:
            rebalance_timeout_ms = written.session_timeout
        member = group.members.get(written.member_id)
        if member is None:
            member = Member(
                member_id=written.member_id,
                group_instance_id=written.group_instance_id,
                client_id=written.client_id,
                client_host=written.client_host,
                rebalance_timeout_ms=rebalance_timeout_ms,
                session_timeout_ms=written.session_timeout,
                protocols=protocols,
            )
            group.add(member, group.protocol_type or "")
        else:
            if member.protocols.get(protocol) == protocols[protocol]:
                protocols = member.protocols
            group.update(member, protocols, rebalance_timeout_ms, written.session_timeout)
        member.assignment = bytes(written.assignment)

    def _forget(self, group_id: str) -> None:
        """A group's tombstone comes when all of its offsets are gone; one that has some left is a simple group."""
        group = self.groups.pop(group_id, None)
        if group is None:
            return
        for timer in (join_timer(group), sync_timer(group)):
            self._timers.cancel(timer)
        for member_id in (*group.members, *group.pending_members):
            self._timers.cancel(session_timer(group, member_id))
        if self.offsets.count(group_id) or self.offsets.has_open_transaction(group_id):
            self.groups[group_id] = Group(group_id)


WANT_A_NAME = frozenset({JoinGroupRequest, SyncGroupRequest, HeartbeatRequest, LeaveGroupRequest, OffsetDeleteRequest})
"""The others take the empty group id too: very old consumers keep offsets under it."""

HANDLERS: dict[type, Callable[[GroupShard, Turn, Request], None]] = {
    JoinGroupRequest: GroupShard.join,
    SyncGroupRequest: GroupShard.sync,
    HeartbeatRequest: GroupShard.heartbeat,
    LeaveGroupRequest: GroupShard.leave,
    OffsetCommitRequest: GroupShard.commit,
    TxnOffsetCommitRequest: GroupShard.commit_in_transaction,
    OffsetFetchRequest: GroupShard.fetch,
    OffsetDeleteRequest: GroupShard.delete_offsets,
    DescribeGroupsRequest: GroupShard.describe,
    DeleteGroupsRequest: GroupShard.delete,
}
