"""The phases of a rebalance, and what starts, ends and breaks them.

A rebalance has two phases. In the join phase (PreparingRebalance) the group waits for its members to send JoinGroup:
until all have, or the longest rebalance timeout of them is over, when the silent ones are dropped. Then the
generation goes up, a protocol is selected and all waiting members are answered. In the sync phase
(CompletingRebalance) the members send SyncGroup, the leader's with everybody's assignment; who has not sent one
within the rebalance timeout is dropped and the group starts over. The first rebalance of an empty group has no one to
wait for, so it waits for a fixed delay instead, which newcomers extend (KIP-134).

Kafka class GroupMetadataManager (the methods about classic groups).
"""

from kpy.errors import ErrorCode
from kpy.group.answers import join_error, joined, sync_error
from kpy.group.group import UNKNOWN_MEMBER_ID, Group, Member
from kpy.group.records import group_record, subscribed_topics
from kpy.group.transitions import Cause, GroupState, Move
from kpy.group.turn import TimerKey, Turn


def join_timer(group: Group) -> TimerKey:
    return ("join", group.group_id, "")


def sync_timer(group: Group) -> TimerKey:
    return ("sync", group.group_id, "")


def session_timer(group: Group, member_id: str) -> TimerKey:
    return ("session", group.group_id, member_id)


def arm_session(turn: Turn, group: Group, member: Member) -> None:
    turn.timers.arm(session_timer(group, member.member_id), turn.now_ms + member.session_timeout_ms)


def move(turn: Turn, group: Group, cause: Cause, member_id: str = "", reason: str = "") -> None:
    before = group.state
    group.enter(cause, turn.now_ms)
    turn.effects.notes.append(Move(group.group_id, group.generation_id, before, cause, group.state, member_id, reason))


# -- the join phase ----------------------------------------------------------------------------------------------------


def rebalance(turn: Turn, group: Group, cause: Cause, member_id: str = "", reason: str = "") -> None:
    """Start over. In a group that waits for its members to join, one more or less may be what ends the wait."""
    if group.state is GroupState.PREPARING_REBALANCE:
        complete_join_if_all_joined(turn, group)
    else:
        prepare_rebalance(turn, group, cause, member_id, reason)


def prepare_rebalance(turn: Turn, group: Group, cause: Cause, member_id: str = "", reason: str = "") -> None:
    """Ask everybody to join again: members in the sync phase are told now, the others by their next heartbeat."""
    if group.state is GroupState.COMPLETING_REBALANCE:
        for member in group.members.values():
            if answer_sync(turn, member, ErrorCode.REBALANCE_IN_PROGRESS):
                arm_session(turn, group, member)
    group.pending_sync.clear()
    turn.timers.cancel(sync_timer(group))
    group_was_empty = group.state is GroupState.EMPTY
    move(turn, group, cause, member_id, reason)
    if group_was_empty:
        delay_ms = turn.config.group_initial_rebalance_delay_ms
        group.initial_delay_left_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
        group.newcomer_during_delay = False
        if delay_ms > 0:
            turn.timers.arm(join_timer(group), turn.now_ms + delay_ms)
        else:
            complete_join(turn, group)
    elif group.all_joined:
        complete_join(turn, group)
    else:
        turn.timers.arm(join_timer(group), turn.now_ms + group.rebalance_timeout_ms)


def complete_join_if_all_joined(turn: Turn, group: Group) -> None:
    """The first rebalance of an empty group ends with its delay, not when all have joined: nobody knows who all are."""
    if group.state is GroupState.PREPARING_REBALANCE and group.initial_delay_left_ms is None and group.all_joined:
        complete_join(turn, group)


def join_time_is_up(turn: Turn, group: Group) -> None:
    left_ms = group.initial_delay_left_ms
    if group.newcomer_during_delay and left_ms is not None and left_ms > 0:
        delay_ms = min(turn.config.group_initial_rebalance_delay_ms, left_ms)
        group.newcomer_during_delay = False
        group.initial_delay_left_ms = left_ms - delay_ms
        turn.timers.arm(join_timer(group), turn.now_ms + delay_ms)
    else:
        complete_join(turn, group)


def complete_join(turn: Turn, group: Group) -> None:
    """Start the next generation with the members that have joined, and the static ones whether they have or not."""
    turn.timers.cancel(join_timer(group))
    for member in [each for each in group.members.values() if each.join is None and not each.is_static]:
        drop(turn, group, member.member_id)
    if group.members and group.awaiting_join == 0:
        # Only static members are left and none of them has come back: theirs is the session timeout to decide.
        turn.timers.arm(join_timer(group), turn.now_ms + group.rebalance_timeout_ms)
        return
    if group.leader_id is not None and group.members[group.leader_id].join is None:
        group.leader_id = next(each.member_id for each in group.members.values() if each.join is not None)
    group.generation_id += 1
    group.pending_sync.clear()
    if group.members:
        start_sync_phase(turn, group)
    else:
        group.protocol_name = None
        group.subscribed_topics = subscribed_topics(group)
        move(turn, group, Cause.NOBODY_IS_LEFT)
        turn.effects.append([group_record(group, {})])


def start_sync_phase(turn: Turn, group: Group) -> None:
    group.protocol_name = group.select_protocol()
    group.subscribed_topics = subscribed_topics(group)
    move(turn, group, Cause.MEMBERS_HAVE_JOINED)
    for member in group.members.values():
        waiting = group.take_join(member)
        if waiting is not None:
            turn.effects.reply(waiting.token, joined(group, member, waiting.version))
        member.is_new = False
        group.pending_sync.add(member.member_id)
        arm_session(turn, group, member)
    turn.timers.arm(sync_timer(group), turn.now_ms + group.rebalance_timeout_ms)


# -- the sync phase ----------------------------------------------------------------------------------------------------


def member_has_synced(turn: Turn, group: Group, member: Member) -> None:
    group.pending_sync.discard(member.member_id)
    if not group.pending_sync:
        turn.timers.cancel(sync_timer(group))


def sync_time_is_up(turn: Turn, group: Group) -> None:
    late = sorted(group.pending_sync)
    for member_id in late:
        drop(turn, group, member_id)
    prepare_rebalance(turn, group, Cause.SYNC_IS_LATE, late[0])


# -- members that go ---------------------------------------------------------------------------------------------------


def session_time_is_up(turn: Turn, group: Group, member_id: str) -> None:
    """A pending id was never used, or a member fell silent. Who waits for an answer cannot heartbeat and stays."""
    member = group.members.get(member_id)
    if member is None:
        group.remove(member_id)
        complete_join_if_all_joined(turn, group)
    elif member.is_new or (member.join is None and member.sync is None):
        drop(turn, group, member_id)
        members_are_gone(turn, group, member_id, "its session is over")


def drop(turn: Turn, group: Group, member_id: str) -> None:
    """Take a member out. A request of its own that was parked is answered UNKNOWN_MEMBER_ID."""
    turn.timers.cancel(session_timer(group, member_id))
    member = group.remove(member_id)
    if member is None:
        return
    if member.join is not None:
        waiting, member.join = member.join, None
        turn.effects.reply(waiting.token, join_error(waiting.version, ErrorCode.UNKNOWN_MEMBER_ID, UNKNOWN_MEMBER_ID))
    answer_sync(turn, member, ErrorCode.UNKNOWN_MEMBER_ID)


def members_are_gone(turn: Turn, group: Group, member_id: str, reason: str) -> None:
    """The group goes on without the members that were just dropped."""
    if group.state is not GroupState.EMPTY:
        rebalance(turn, group, Cause.MEMBER_GOES, member_id, reason)


def answer_sync(turn: Turn, member: Member, error: ErrorCode) -> bool:
    """Answer a member's parked SyncGroup with an error, if it has one."""
    waiting, member.sync = member.sync, None
    if waiting is None:
        return False
    turn.effects.reply(waiting.token, sync_error(error))
    return True
