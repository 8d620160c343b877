"""The classic group protocol (KIP-62 and what grew on it): each request against each state of its group.

Theory of operation. A group is Empty, PreparingRebalance (its members are to join again), CompletingRebalance (they
have joined, and wait for the leader's assignment) or Stable (they have it). `TABLE` says for each state what a
request does, kpy/group/transitions.py what moves a group from one state to another, kpy/group/rebalance.py how that
is done; kpy/group/shard.py has the loop around all of it.

Membership, the generation and the three rebalancing states are soft: they run ahead of the log, as in Apache Kafka,
and after a crash members simply rejoin the last generation that was written. What is written is the assignment, once
the leader has sent it. The group becomes Stable and its members get their partitions only when that record is
replayed, so that an assignment nobody could read back is never acted on.

Members are dynamic, with an id the coordinator makes (KIP-394: handed out first, joined with second), or static, with
an instance id of their own under which they can come back without a rebalance (KIP-345, KIP-814). Whether an assignor
is eager or cooperative (KIP-429) is between the members: two rebalances follow each other, and the coordinator sees
nothing special in that.

Kafka classes GroupMetadataManager (classicGroup...) and ClassicGroup.
"""

from collections.abc import Callable
from typing import NamedTuple

from kpy.errors import ErrorCode
from kpy.group.answers import join_error, joined, sync_error
from kpy.group.group import UNKNOWN_MEMBER_ID, Group, Member, Waiting
from kpy.group.rebalance import (
    answer_sync,
    arm_session,
    complete_join_if_all_joined,
    drop,
    member_has_synced,
    members_are_gone,
    rebalance,
    session_timer,
)
from kpy.group.records import group_record
from kpy.group.transitions import Cause, GroupState
from kpy.group.turn import MAX_PENDING_MEMBERS, NEW_MEMBER_JOIN_TIMEOUT_MS, Turn
from kpy.machine import Request
from kpy.wire.heartbeat import HeartbeatRequest, HeartbeatResponse
from kpy.wire.join_group import JoinGroupRequest, JoinGroupResponse
from kpy.wire.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupResponse

REBALANCE_TIMEOUT_SINCE = 1
MEMBER_ID_REQUIRED_SINCE = 4
SKIP_ASSIGNMENT_SINCE = 9
PROTOCOL_IN_SYNC_SINCE = 5
BATCH_LEAVE_SINCE = 3


# -- JoinGroup ---------------------------------------------------------------------------------------------------------


def member_joins(turn: Turn, group: Group, request: Request) -> None:
    """Any JoinGroup to a group that exists or, for a member without an id, may come to exist."""
    message: JoinGroupRequest = request.message
    member_id = message.member_id
    if not has_room_for(turn, group, message):
        drop(turn, group, member_id)
        refuse_join(turn, request, ErrorCode.GROUP_MAX_SIZE_REACHED, UNKNOWN_MEMBER_ID)
        complete_join_if_all_joined(turn, group)
    elif not group.supports(message.protocol_type, [each.name for each in message.protocols]):
        refuse_join(turn, request, ErrorCode.INCONSISTENT_GROUP_PROTOCOL, member_id)
    elif member_id == UNKNOWN_MEMBER_ID:
        unknown_member_joins(turn, group, request)
    elif member_id in group.pending_members and message.group_instance_id is None:
        new_member_joins(turn, group, request, member_id)
    else:
        error = group.check_member(member_id, message.group_instance_id)
        if error:
            refuse_join(turn, request, error, member_id)
        else:
            TABLE[group.state].member_rejoins(turn, group, group.members[member_id], request)


def has_room_for(turn: Turn, group: Group, message: JoinGroupRequest) -> bool:
    """While a group rebalances, group.max.size counts who has joined so far, so that the last ones stay outside.

    A static member that comes back takes its own place, also in a full group.
    """
    limit = turn.config.group_max_size
    member_id = message.member_id
    if member_id == UNKNOWN_MEMBER_ID and message.group_instance_id is not None:
        member_id = group.static_members.get(message.group_instance_id, UNKNOWN_MEMBER_ID)
    member = group.members.get(member_id)
    if group.state is GroupState.EMPTY:
        return True
    if group.state is GroupState.PREPARING_REBALANCE:
        return (member is not None and member.join is not None) or group.awaiting_join < limit
    return member is not None or len(group.members) < limit


def unknown_member_joins(turn: Turn, group: Group, request: Request) -> None:
    """A member without an id. A static one is known by its instance id, or new; a dynamic one gets an id first."""
    message: JoinGroupRequest = request.message
    instance_id = message.group_instance_id
    if instance_id is not None:
        new_member_id = turn.new_member_id(instance_id)
        known_as = group.static_members.get(instance_id)
        if known_as is None:
            new_member_joins(turn, group, request, new_member_id)
        else:
            static_member_returns(turn, group, request, group.members[known_as], new_member_id)
        return
    new_member_id = turn.new_member_id(request.client_id)
    if request.version < MEMBER_ID_REQUIRED_SINCE:
        new_member_joins(turn, group, request, new_member_id)
    elif len(group.pending_members) >= MAX_PENDING_MEMBERS:
        refuse_join(turn, request, ErrorCode.GROUP_MAX_SIZE_REACHED, UNKNOWN_MEMBER_ID)
    else:
        group.expect(new_member_id)
        turn.timers.arm(session_timer(group, new_member_id), turn.now_ms + message.session_timeout_ms)
        refuse_join(turn, request, ErrorCode.MEMBER_ID_REQUIRED, new_member_id)


def new_member_joins(turn: Turn, group: Group, request: Request, member_id: str) -> None:
    message: JoinGroupRequest = request.message
    member = Member(
        member_id=member_id,
        group_instance_id=message.group_instance_id,
        client_id=request.client_id,
        client_host=request.client_host,
        rebalance_timeout_ms=rebalance_timeout_ms(request),
        session_timeout_ms=message.session_timeout_ms,
        protocols=protocols_of(message),
        is_new=True,
    )
    group.add(member, message.protocol_type)
    group.park_join(member, Waiting(request.token, request.version))
    if group.initial_delay_left_ms is not None:
        group.newcomer_during_delay = True
    turn.timers.arm(session_timer(group, member_id), turn.now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS)
    rebalance(turn, group, Cause.MEMBER_IS_NEW, member_id, message.reason or "")


def static_member_returns(turn: Turn, group: Group, request: Request, member: Member, new_member_id: str) -> None:
    """A static member without an id is one that has been restarted: it gets a new id, and the old one is fenced."""
    turn.timers.cancel(session_timer(group, member.member_id))
    older = group.take_join(member)
    if older is not None:
        turn.effects.reply(older.token, join_error(older.version, ErrorCode.FENCED_INSTANCE_ID, member.member_id))
    answer_sync(turn, member, ErrorCode.FENCED_INSTANCE_ID)
    old_leader_id = group.leader_id
    group.rename_static(member, new_member_id)
    take_over(group, member, request)
    arm_session(turn, group, member)
    if group.state is GroupState.STABLE and group.select_protocol() == group.protocol_name:
        # Nothing changes for the others: same generation, same assignment, another id.
        assignments = {each.member_id: each.assignment for each in group.members.values()}
        turn.effects.append([group_record(group, assignments)])
        turn.effects.reply(request.token, joined_without_rebalance(group, member, request.version, old_leader_id))
    else:
        park_join(turn, group, member, request)
        reason: str | None = request.message.reason
        rebalance(turn, group, Cause.STATIC_MEMBER_RETURNS, new_member_id, reason or "")


def joined_without_rebalance(
    group: Group, member: Member, version: int, old_leader_id: str | None
) -> JoinGroupResponse:
    """A leader that came back must not assign again. Before version 9 it is kept from it by hiding that it leads."""
    if version < SKIP_ASSIGNMENT_SINCE:
        return joined(group, member, version, leader_id=old_leader_id)
    response = joined(group, member, version)
    response.skip_assignment = group.leader_id == member.member_id
    return response


def rejoin_while_preparing(turn: Turn, group: Group, member: Member, request: Request) -> None:
    take_over(group, member, request)
    park_join(turn, group, member, request)
    complete_join_if_all_joined(turn, group)


def rejoin_while_completing(turn: Turn, group: Group, member: Member, request: Request) -> None:
    """The same metadata again means that the answer got lost: it is given again. Other metadata starts over."""
    if member.has_protocols(protocols_of(request.message)):
        turn.effects.reply(request.token, joined(group, member, request.version))
    else:
        rejoin_with_rebalance(turn, group, member, request, Cause.MEMBER_CHANGES)


def rejoin_while_stable(turn: Turn, group: Group, member: Member, request: Request) -> None:
    """The leader rejoins to have partitions assigned anew; another one only if what it subscribes to has changed."""
    if member.member_id == group.leader_id:
        rejoin_with_rebalance(turn, group, member, request, Cause.LEADER_REJOINS)
    elif not member.has_protocols(protocols_of(request.message)):
        rejoin_with_rebalance(turn, group, member, request, Cause.MEMBER_CHANGES)
    else:
        turn.effects.reply(request.token, joined(group, member, request.version))


def rejoin_with_rebalance(turn: Turn, group: Group, member: Member, request: Request, cause: Cause) -> None:
    take_over(group, member, request)
    park_join(turn, group, member, request)
    rebalance(turn, group, cause, member.member_id, request.message.reason or "")


def take_over(group: Group, member: Member, request: Request) -> None:
    message: JoinGroupRequest = request.message
    group.update(member, protocols_of(message), rebalance_timeout_ms(request), message.session_timeout_ms)


def park_join(turn: Turn, group: Group, member: Member, request: Request) -> None:
    """A member waits in one place: when it asks again, the older request, whose client gave it up, is let go."""
    older = group.park_join(member, Waiting(request.token, request.version))
    if older is not None:
        turn.effects.reply(older.token, join_error(older.version, ErrorCode.REBALANCE_IN_PROGRESS, member.member_id))


def refuse_join(turn: Turn, request: Request, error: ErrorCode, member_id: str) -> None:
    turn.effects.reply(request.token, join_error(request.version, error, member_id))


def protocols_of(message: JoinGroupRequest) -> dict[str, bytes]:
    return {each.name: bytes(each.metadata) for each in message.protocols}


def rebalance_timeout_ms(request: Request) -> int:
    message: JoinGroupRequest = request.message
    return message.rebalance_timeout_ms if request.version >= REBALANCE_TIMEOUT_SINCE else message.session_timeout_ms


# -- SyncGroup ---------------------------------------------------------------------------------------------------------


def member_syncs(turn: Turn, group: Group, request: Request) -> None:
    message: SyncGroupRequest = request.message
    error = group.check_member(message.member_id, message.group_instance_id)
    if not error and message.generation_id != group.generation_id:
        error = ErrorCode.ILLEGAL_GENERATION
    told = (message.protocol_type, message.protocol_name)
    known = (group.protocol_type, group.protocol_name)
    # Before the version that has these fields the group's own are taken for granted.
    if not error and request.version >= PROTOCOL_IN_SYNC_SINCE and told != known:
        error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if error:
        turn.effects.reply(request.token, sync_error(error))
    else:
        TABLE[group.state].member_syncs(turn, group, group.members[message.member_id], request)


def sync_while_preparing(turn: Turn, group: Group, member: Member, request: Request) -> None:
    turn.effects.reply(request.token, sync_error(ErrorCode.REBALANCE_IN_PROGRESS))


def sync_while_completing(turn: Turn, group: Group, member: Member, request: Request) -> None:
    """Followers wait for the leader. With its assignment all are answered, once it is written."""
    message: SyncGroupRequest = request.message
    answer_sync(turn, member, ErrorCode.REBALANCE_IN_PROGRESS)
    member.sync = Waiting(request.token, request.version)
    member_has_synced(turn, group, member)
    if member.member_id != group.leader_id:
        return
    assignments = {each.member_id: bytes(each.assignment) for each in message.assignments}
    # The record says when the group became Stable, which it does when the record is replayed.
    group.state_timestamp_ms = turn.now_ms
    turn.effects.append([group_record(group, assignments)])
    for each in group.members.values():
        waiting, each.sync = each.sync, None
        if waiting is not None:
            turn.effects.reply(waiting.token, synced(group, assignments.get(each.member_id, b"")))
            arm_session(turn, group, each)


def sync_while_stable(turn: Turn, group: Group, member: Member, request: Request) -> None:
    member_has_synced(turn, group, member)
    arm_session(turn, group, member)
    # Another coordinator could assign this generation differently as long as the record of it is not committed.
    turn.effects.reads_state = True
    turn.effects.reply(request.token, synced(group, member.assignment))


def synced(group: Group, assignment: bytes) -> SyncGroupResponse:
    return SyncGroupResponse(
        protocol_type=group.protocol_type, protocol_name=group.protocol_name, assignment=assignment
    )


# -- Heartbeat ---------------------------------------------------------------------------------------------------------


def member_heartbeats(turn: Turn, group: Group, request: Request) -> None:
    message: HeartbeatRequest = request.message
    error = group.check_member(message.member_id, message.group_instance_id)
    if not error and message.generation_id != group.generation_id:
        error = ErrorCode.ILLEGAL_GENERATION
    if not error:
        arm_session(turn, group, group.members[message.member_id])
        error = TABLE[group.state].heartbeat_answer
    turn.effects.reply(request.token, HeartbeatResponse(error_code=error))


# -- LeaveGroup --------------------------------------------------------------------------------------------------------


def members_leave(turn: Turn, group: Group, request: Request) -> None:
    """Version 3 and later can name several members, static ones by their instance id alone."""
    leaving = leaving_members(request)
    results = [
        MemberResponse(
            member_id=each.member_id,
            group_instance_id=each.group_instance_id,
            error_code=member_leaves(turn, group, each),
        )
        for each in leaving
    ]
    turn.effects.reply(request.token, left(request.version, results))
    # That the log still knows the last generation does no harm: all its members will be silent.
    turn.effects.replies_stand = True
    gone = next((each for each, result in zip(leaving, results, strict=True) if not result.error_code), None)
    if gone is not None:
        # Static members may be named by their instance id alone.
        members_are_gone(turn, group, gone.member_id or gone.group_instance_id or "", gone.reason or "")


def member_leaves(turn: Turn, group: Group, leaving: MemberIdentity) -> ErrorCode:
    member_id = leaving.member_id
    if member_id == UNKNOWN_MEMBER_ID and leaving.group_instance_id is not None:
        member_id = group.static_members.get(leaving.group_instance_id, UNKNOWN_MEMBER_ID)
    if member_id not in group.pending_members:
        error = group.check_member(member_id, leaving.group_instance_id)
        if error:
            return error
    drop(turn, group, member_id)
    return ErrorCode.NONE


def leaving_members(request: Request) -> list[MemberIdentity]:
    message: LeaveGroupRequest = request.message
    return message.members if request.version >= BATCH_LEAVE_SINCE else [MemberIdentity(member_id=message.member_id)]


def left(version: int, results: list[MemberResponse]) -> LeaveGroupResponse:
    if version >= BATCH_LEAVE_SINCE:
        return LeaveGroupResponse(members=results)
    return LeaveGroupResponse(error_code=results[0].error_code)


def leave_unknown_group(request: Request) -> LeaveGroupResponse:
    return left(
        request.version,
        [
            MemberResponse(
                member_id=each.member_id,
                group_instance_id=each.group_instance_id,
                error_code=ErrorCode.UNKNOWN_MEMBER_ID,
            )
            for each in leaving_members(request)
        ],
    )


# -- states against events ---------------------------------------------------------------------------------------------


def empty_group_has_a_member(turn: Turn, group: Group, member: Member, request: Request) -> None:
    raise AssertionError(f"the empty group {group.group_id} has the member {member.member_id}")


class Row(NamedTuple):
    """What a state makes of the request of a member it knows."""

    member_rejoins: Callable[[Turn, Group, Member, Request], None]
    member_syncs: Callable[[Turn, Group, Member, Request], None]
    heartbeat_answer: ErrorCode


TABLE: dict[GroupState, Row] = {
    GroupState.EMPTY: Row(
        member_rejoins=empty_group_has_a_member,
        member_syncs=empty_group_has_a_member,
        heartbeat_answer=ErrorCode.UNKNOWN_MEMBER_ID,
    ),
    GroupState.PREPARING_REBALANCE: Row(
        member_rejoins=rejoin_while_preparing,
        member_syncs=sync_while_preparing,
        heartbeat_answer=ErrorCode.REBALANCE_IN_PROGRESS,
    ),
    GroupState.COMPLETING_REBALANCE: Row(
        member_rejoins=rejoin_while_completing,
        member_syncs=sync_while_completing,
        heartbeat_answer=ErrorCode.NONE,
    ),
    GroupState.STABLE: Row(
        member_rejoins=rejoin_while_stable,
        member_syncs=sync_while_stable,
        heartbeat_answer=ErrorCode.NONE,
    ),
}
