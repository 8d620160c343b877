"""A classic consumer group and its members: who is in it, what they support, who waits for an answer.

Only bookkeeping lives here, and each method keeps the counters beside the members true. What happens in which state is
the table in kpy/group/classic.py. Kafka classes ClassicGroup and ClassicGroupMember.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kpy.errors import ErrorCode
from kpy.group.transitions import TRANSITIONS, Cause, GroupState

CONSUMER_PROTOCOL_TYPE = "consumer"
"""The protocol type of consumers, whose subscriptions the coordinator can read. Connect workers say "connect"."""

UNKNOWN_MEMBER_ID = ""
"""What a member that has no id yet sends."""


class Waiting(NamedTuple):
    """A parked JoinGroup or SyncGroup: whom to answer, and in which version."""

    token: Any
    version: int


@dataclass(slots=True, eq=False)
class Member:
    """One member of a classic group. `protocols` maps names to metadata, in the member's order of preference."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocols: dict[str, bytes]
    assignment: bytes = b""
    is_new: bool = False
    """It has not been told of a generation yet, so its session timer also runs while its JoinGroup is parked."""
    join: Waiting | None = None
    sync: Waiting | None = None

    @property
    def is_static(self) -> bool:
        return self.group_instance_id is not None

    def has_protocols(self, protocols: Mapping[str, bytes]) -> bool:
        """Whether these are the very protocols, metadata and order of preference that the member joined with."""
        return list(self.protocols.items()) == list(protocols.items())


_NO_MEMBERS: Final[dict[str, Member]] = {}
_NO_INSTANCES: Final[dict[str, str]] = {}
_NO_IDS: Final[set[str]] = set()
_NO_SUPPORT: Final[Counter[str]] = Counter()


class Group:
    """One classic group. Times are milliseconds of the broker's clock; None stands for what Kafka leaves empty.

    A group that has never had a member, as simple consumers make them, shares its empty containers with all others like
    it: they would be 1 kB of its 1.2. It is no dataclass because mypyc leaves the `__init__` of one to the interpreter,
    which was most of the time that a group took to make.
    """

    __slots__ = (
        "_support",
        "awaiting_join",
        "generation_id",
        "group_id",
        "in_log",
        "initial_delay_left_ms",
        "leader_id",
        "members",
        "newcomer_during_delay",
        "pending_members",
        "pending_sync",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp_ms",
        "static_members",
        "subscribed_topics",
    )

    def __init__(self, group_id: str, state_timestamp_ms: int | None = None) -> None:
        self.group_id = group_id
        self.state = GroupState.EMPTY
        self.state_timestamp_ms = state_timestamp_ms
        """When the state was entered; None for groups of very old logs, which did not keep it."""
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.generation_id = 0
        self.leader_id: str | None = None
        self.members: dict[str, Member] = _NO_MEMBERS
        self.static_members: dict[str, str] = _NO_INSTANCES
        """group_instance_id -> member_id."""
        self.pending_members: set[str] = _NO_IDS
        """Ids given out with MEMBER_ID_REQUIRED whose owners have not joined with them yet (KIP-394)."""
        self.pending_sync: set[str] = _NO_IDS
        """Members of this generation that have not sent SyncGroup yet."""
        self.subscribed_topics: frozenset[str] | None = None
        """What the members of a consumer group subscribe to together; None when that is not known."""
        self.initial_delay_left_ms: int | None = None
        """During the rebalance that starts an empty group: how much longer newcomers may delay it. None otherwise."""
        self.newcomer_during_delay = False
        self.in_log = False
        """A GroupMetadataValue of this group is in the log, so its end needs a tombstone."""
        self.awaiting_join = 0
        self._support: Counter[str] = _NO_SUPPORT
        """protocol name -> how many members support it."""

    def enter(self, cause: Cause, now_ms: int) -> None:
        """Change the state as the table of transitions says; KeyError for a move it does not have."""
        self.state = TRANSITIONS[self.state][cause]
        self.state_timestamp_ms = now_ms
        if self.state is not GroupState.PREPARING_REBALANCE:
            self.initial_delay_left_ms = None

    # -- members -----------------------------------------------------------------------------------------------------

    def _prepare_for_members(self) -> None:
        """Gives it containers of its own."""
        if self.members is _NO_MEMBERS:
            self.members, self.static_members = {}, {}
            self.pending_members, self.pending_sync = set(), set()
            self._support = Counter()

    def expect(self, member_id: str) -> None:
        """An id is given out with MEMBER_ID_REQUIRED."""
        self._prepare_for_members()
        self.pending_members.add(member_id)

    def add(self, member: Member, protocol_type: str) -> None:
        """Take in a member whose protocols the group supports. The first one leads and decides the protocol type."""
        self._prepare_for_members()
        if not self.members:
            self.protocol_type = protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        if member.group_instance_id is not None:
            self.static_members[member.group_instance_id] = member.member_id
        self.members[member.member_id] = member
        self._support.update(member.protocols.keys())
        self.pending_members.discard(member.member_id)

    def remove(self, member_id: str) -> Member | None:
        """Forget a member or a pending one. Its parked requests, if any, are still on the returned member to answer."""
        self.pending_members.discard(member_id)
        self.pending_sync.discard(member_id)
        member = self.members.pop(member_id, None)
        if member is None:
            return None
        self._support.subtract(member.protocols.keys())
        self._support += Counter()
        if member.join is not None:
            self.awaiting_join -= 1
        if member.group_instance_id is not None and self.static_members.get(member.group_instance_id) == member_id:
            del self.static_members[member.group_instance_id]
        if self.leader_id == member_id:
            self.leader_id = next(iter(self.members), None)
        return member

    def rename_static(self, member: Member, new_member_id: str) -> None:
        """Give a static member that came back its new id, in its old place (KIP-345). The old id is fenced then."""
        assert member.group_instance_id is not None
        old_member_id = member.member_id
        self.members = {
            (new_member_id if member_id == old_member_id else member_id): each
            for member_id, each in self.members.items()
        }
        member.member_id = new_member_id
        self.static_members[member.group_instance_id] = new_member_id
        if self.leader_id == old_member_id:
            self.leader_id = new_member_id
        if old_member_id in self.pending_sync:
            self.pending_sync.remove(old_member_id)
            self.pending_sync.add(new_member_id)

    def update(
        self, member: Member, protocols: dict[str, bytes], rebalance_timeout_ms: int, session_timeout_ms: int
    ) -> None:
        """Take over what a member says of itself when it joins again."""
        self._support.subtract(member.protocols.keys())
        self._support.update(protocols.keys())
        self._support += Counter()
        member.protocols = protocols
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def park_join(self, member: Member, waiting: Waiting) -> Waiting | None:
        """Let a member wait for the next generation. Returns the older wait that this one takes the place of."""
        older = member.join
        if older is None:
            self.awaiting_join += 1
        member.join = waiting
        return older

    def take_join(self, member: Member) -> Waiting | None:
        waiting = member.join
        if waiting is not None:
            member.join = None
            self.awaiting_join -= 1
        return waiting

    def check_member(self, member_id: str, group_instance_id: str | None) -> ErrorCode:
        """NONE, UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID when another member holds the instance id by now."""
        if group_instance_id is not None:
            holder = self.static_members.get(group_instance_id)
            if holder is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if holder != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    # -- what the members have in common -----------------------------------------------------------------------------

    @property
    def all_joined(self) -> bool:
        return self.awaiting_join == len(self.members) and not self.pending_members

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest rebalance timeout of the members: the slowest one decides."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    @property
    def is_consumer_group(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def supports(self, protocol_type: str, protocols: Iterable[str]) -> bool:
        """Whether a member with these protocols can join: at least one must be common to all members."""
        if self.state is GroupState.EMPTY:
            return protocol_type != "" and any(True for _ in protocols)
        return self.protocol_type == protocol_type and any(
            self._support[name] == len(self.members) for name in protocols
        )

    def select_protocol(self) -> str:
        """Each member votes for its most preferred protocol among those that all members support.

        The most votes win; of equals, the one that was voted for first.
        """
        everyone = len(self.members)
        votes: Counter[str] = Counter()
        for member in self.members.values():
            votes[next(name for name in member.protocols if self._support[name] == everyone)] += 1
        return max(votes, key=votes.__getitem__)

    def is_subscribed_to(self, topic: str) -> bool:
        """True also when a consumer group's subscriptions are not known: nothing of it may be thrown away then."""
        if self.subscribed_topics is not None:
            return topic in self.subscribed_topics
        return self.is_consumer_group
