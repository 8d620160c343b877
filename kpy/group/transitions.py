"""The life of a classic group as a table: what moves it from which state to which.

Every change of a group's state goes through `TRANSITIONS`, so one that is not here cannot happen: it is a broken
invariant and raises KeyError. The drawing in ARCHITECTURE.md is made from it, and each of its moves has a transcript.

Two moves are the log's alone: an assignment, or a generation without members, counts when its record is replayed, be
it just after it was written or when a coordinator reads the partition from its beginning. (Apache Kafka's
validPreviousStates; class ClassicGroupState.)
"""

from enum import StrEnum
from typing import NamedTuple


class GroupState(StrEnum):
    """The states as Kafka prints them. Dead is never stored: it is what a group that does not exist is described as."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Cause(StrEnum):
    """Why a group changes its state."""

    FIRST_USED = "first joined or committed to"
    MEMBER_IS_NEW = "a new member joins"
    MEMBER_CHANGES = "a member joins with other protocols"
    LEADER_REJOINS = "the leader joins again"
    STATIC_MEMBER_RETURNS = "a static member returns and changes what is agreed on"
    MEMBER_GOES = "a member leaves or falls silent"
    SYNC_IS_LATE = "a member does not sync in time"
    ABOVE_MAX_SIZE = "more members are loaded than group.max.size"
    MEMBERS_HAVE_JOINED = "the members have joined, or their time is up"
    NOBODY_IS_LEFT = "the last member goes"
    ASSIGNMENT_IN_LOG = "an assignment is in the log"
    NO_MEMBERS_IN_LOG = "a generation without members is in the log"
    OVER = "it is deleted, or nothing is left of it"


TRANSITIONS: dict[GroupState, dict[Cause, GroupState]] = {
    GroupState.DEAD: {
        Cause.FIRST_USED: GroupState.EMPTY,
    },
    GroupState.EMPTY: {
        Cause.MEMBER_IS_NEW: GroupState.PREPARING_REBALANCE,
        Cause.ASSIGNMENT_IN_LOG: GroupState.STABLE,
        Cause.NO_MEMBERS_IN_LOG: GroupState.EMPTY,
        Cause.OVER: GroupState.DEAD,
    },
    GroupState.PREPARING_REBALANCE: {
        Cause.MEMBERS_HAVE_JOINED: GroupState.COMPLETING_REBALANCE,
        Cause.NOBODY_IS_LEFT: GroupState.EMPTY,
    },
    GroupState.COMPLETING_REBALANCE: {
        Cause.ASSIGNMENT_IN_LOG: GroupState.STABLE,
        Cause.MEMBER_IS_NEW: GroupState.PREPARING_REBALANCE,
        Cause.MEMBER_CHANGES: GroupState.PREPARING_REBALANCE,
        Cause.STATIC_MEMBER_RETURNS: GroupState.PREPARING_REBALANCE,
        Cause.MEMBER_GOES: GroupState.PREPARING_REBALANCE,
        Cause.SYNC_IS_LATE: GroupState.PREPARING_REBALANCE,
    },
    GroupState.STABLE: {
        Cause.ASSIGNMENT_IN_LOG: GroupState.STABLE,
        Cause.NO_MEMBERS_IN_LOG: GroupState.EMPTY,
        Cause.MEMBER_IS_NEW: GroupState.PREPARING_REBALANCE,
        Cause.MEMBER_CHANGES: GroupState.PREPARING_REBALANCE,
        Cause.LEADER_REJOINS: GroupState.PREPARING_REBALANCE,
        Cause.STATIC_MEMBER_RETURNS: GroupState.PREPARING_REBALANCE,
        Cause.MEMBER_GOES: GroupState.PREPARING_REBALANCE,
        Cause.SYNC_IS_LATE: GroupState.PREPARING_REBALANCE,
        Cause.ABOVE_MAX_SIZE: GroupState.PREPARING_REBALANCE,
        Cause.OVER: GroupState.DEAD,
    },
}


MAX_REASON_SHOWN = 255
"""As much as Apache Kafka's clients send."""


class Move(NamedTuple):
    """One change of a group's state, for the log. `member_id` is whose doing it was, "" for nobody's.

    `reason` is what the client gave as its own (KIP-800); it is not to be trusted.
    """

    group_id: str
    generation_id: int
    before: GroupState
    cause: Cause
    after: GroupState
    member_id: str = ""
    reason: str = ""

    def __str__(self) -> str:
        who = f", {self.member_id}" if self.member_id else ""
        why = f' ("{self.reason[:MAX_REASON_SHOWN]}")' if self.reason else ""
        generation = f"in generation {self.generation_id}"
        return f"group {self.group_id} {generation}: {self.before} -> {self.after}: {self.cause}{who}{why}"


def drawing() -> str:
    """The table as a Mermaid state diagram. Moves between the same two states share an arrow."""
    arrows: dict[tuple[GroupState, GroupState], list[Cause]] = {}
    for before, causes in TRANSITIONS.items():
        for cause, after in causes.items():
            arrows.setdefault((before, after), []).append(cause)
    lines = [f"    {before} --> {after}: {'<br/>'.join(causes)}" for (before, after), causes in arrows.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {GroupState.DEAD}", *lines])
