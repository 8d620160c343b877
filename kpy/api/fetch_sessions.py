"""Incremental fetch sessions (KIP-227, Kafka class FetchSession): what a client wants is remembered, so it sends only
changes.

A session is a list of partitions with the client's last position in each, and what the client was last told. Requests
carry (session id, epoch):

    (0, -1)    no session wanted: the request lists everything, the answer too
    (any, 0)   close that session and open one with what this request lists; an answer with session id 0 refuses it
    (id, n)    the n-th incremental request: its topics are added or changed, its forgotten topics dropped
    (id, -1)   close that session; the request lists everything

An incremental answer lists only partitions that have records, an error, or a watermark that the client does not know.

A fetch looks at those partitions only that may have something to tell: `unread`. One whose end the client has reached,
and of which it has been told all, rests: its partition wakes it with the next append, commit or change of roles. So a
fetch costs nothing for partitions in which nothing happens, for a follower of a thousand as for a consumer of one. What
nobody is woken by (the log start that retention moves, a disk that fails) is found by looking at each resting partition
once in LOOK_OVER_MS.
"""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpy.errors import ErrorCode
from kpy.replica.partition import Partition
from kpy.replica.purgatory import ParkedFetch
from kpy.replica.rotation import LOOK_OVER_MS, Rotation

if TYPE_CHECKING:  # the codec takes a while to import, and a broker that has just started has not been fetched from
    from kpy.wire.fetch import FetchPartition, FetchRequest, PartitionData

INITIAL_EPOCH = 0
FINAL_EPOCH = -1
MAX_EPOCH = 2**31 - 1
EVICTION_IDLE_MS = 120_000
"""A full cache gives up a session for a new one only after it was unused this long
(min.incremental.fetch.session.eviction.ms).
"""

NO_REPLICA = -1


class Wanted:
    """One partition of a fetch: where to read, and what the client was told of it last.

    `topic` is its name, or from version 13 on `topic_id` its id; the other one is empty.
    """

    __slots__ = ("high_watermark", "log_start_offset", "position", "rests_at", "session", "topic", "topic_id", "turn")

    def __init__(
        self, topic: str, topic_id: bytes, position: "FetchPartition", session: "FetchSession | None" = None
    ) -> None:
        self.session = session
        self.turn = 0
        self.rests_at: Partition | None = None
        self.topic = topic
        self.topic_id = topic_id
        self.position = position
        self.high_watermark: int = -1
        self.log_start_offset: int = -1

    def is_news(self, answer: "PartitionData") -> bool:
        """Whether the client must hear of this answer; remembers what it is told."""
        failed = answer.error_code != ErrorCode.NONE
        news = (
            failed
            or bool(answer.records)
            or answer.high_watermark != self.high_watermark
            or answer.log_start_offset != self.log_start_offset
            or answer.diverging_epoch is not None
        )
        if news:
            # After an error the client is told again, whatever comes next.
            self.high_watermark = -1 if failed else answer.high_watermark
            self.log_start_offset = answer.log_start_offset
        return news

    def wake(self, partition: Partition) -> None:
        """Something has happened in the partition that it rests at, which has forgotten it: it is read again."""
        session = self.session
        if session is None:
            return
        self.rests_at = None
        session.unread[self] = None
        if session.parked is not None:
            session.parked.join(partition)
        if session.replica_id != NO_REPLICA:
            partition.follower_had_all(session.replica_id, session.fetched_at_ms)

    def stop_resting(self) -> None:
        """Nobody needs to wake it."""
        if self.rests_at is not None:
            self.rests_at.forget_reader(self)
            self.rests_at = None


@dataclass(slots=True, eq=False)
class FetchSession:
    """Partitions are read in the order of their turns: those served last go to the end, so that none starves."""

    session_id: int
    uses_topic_ids: bool
    last_used_ms: int
    next_epoch: int = 1
    wanted: dict[tuple[str, bytes, int], Wanted] = field(default_factory=dict[tuple[str, bytes, int], Wanted])
    unread: dict[Wanted, None] = field(default_factory=dict[Wanted, None])
    parked: ParkedFetch | None = None
    """The fetch that waits, if one does."""
    replica_id: int = NO_REPLICA
    fetched_at_ms: int = 0
    """Of a follower: its broker id, and when it fetched last, by the clock of its partitions."""
    has_ended: bool = False
    turns: int = 0
    """How many have been given."""
    rotation: Rotation = field(default_factory=lambda: Rotation(LOOK_OVER_MS))

    def update(self, request: "FetchRequest") -> None:
        for topic in request.topics:
            for position in topic.partitions:
                key = (topic.topic, topic.topic_id, position.partition)
                known = self.wanted.get(key)
                if known is None:
                    known = self.wanted[key] = Wanted(topic.topic, topic.topic_id, position, self)
                    self.move_to_end(known)
                else:
                    known.position = position
                self._read_anew(known)
        for forgotten in request.forgotten_topics_data:
            for partition in forgotten.partitions:
                dropped = self.wanted.pop((forgotten.topic, forgotten.topic_id, partition), None)
                if dropped is not None:
                    dropped.stop_resting()
                    self.unread.pop(dropped, None)

    def look_over(self, now_ms: int) -> None:
        """Reads those of the resting whose turn it is."""
        for key in self.rotation.next(self.wanted, now_ms):
            self._read_anew(self.wanted[key])

    def _read_anew(self, wanted: Wanted) -> None:
        wanted.stop_resting()
        self.unread[wanted] = None

    def to_read(self) -> list[Wanted]:
        return sorted(self.unread, key=_turn)

    def move_to_end(self, served: Wanted) -> None:
        self.turns += 1
        served.turn = self.turns

    def rest(self, read: Wanted, partition: Partition, *, of_follower: bool) -> None:
        """The client has, and knows, all that there is in the partition."""
        if not self.has_ended:
            self.unread.pop(read, None)
            read.rests_at = partition
            partition.wake_later(read, of_follower=of_follower)

    def end(self) -> None:
        self.has_ended = True
        for wanted in self.wanted.values():
            wanted.stop_resting()


def _turn(wanted: Wanted) -> int:
    return wanted.turn


class FetchSessions:
    """All sessions of this broker; `max_sessions` is max.incremental.fetch.session.cache.slots."""

    def __init__(self, max_sessions: int, rng: random.Random) -> None:
        self._max_sessions = max_sessions
        self._rng = rng
        self._sessions: dict[int, FetchSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, request: "FetchRequest", uses_topic_ids: bool, now_ms: int) -> FetchSession | ErrorCode | None:
        """The session that this request goes by: None for a full request without one, an error if it names a wrong
        one.
        """
        if request.session_epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            closed = self._sessions.pop(request.session_id, None)
            if closed is not None:
                closed.end()
            if request.session_epoch == FINAL_EPOCH:
                return None
            return self._create(request, uses_topic_ids, now_ms)
        session = self._sessions.get(request.session_id)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if request.session_epoch != session.next_epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.uses_topic_ids != uses_topic_ids:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        session.next_epoch = 1 if session.next_epoch == MAX_EPOCH else session.next_epoch + 1
        session.update(request)
        session.look_over(now_ms)
        self._sessions[session.session_id] = self._sessions.pop(session.session_id)
        session.last_used_ms = now_ms
        return session

    def _create(self, request: "FetchRequest", uses_topic_ids: bool, now_ms: int) -> FetchSession | None:
        if len(self._sessions) >= self._max_sessions and not self._evict_one(now_ms):
            return None
        session_id = self._rng.randint(1, 2**31 - 1)
        while session_id in self._sessions:
            session_id = self._rng.randint(1, 2**31 - 1)
        session = FetchSession(session_id, uses_topic_ids, now_ms)
        session.update(request)
        self._sessions[session_id] = session
        return session

    def _evict_one(self, now_ms: int) -> bool:
        """The sessions are in the order of their last use, so the first one is the candidate."""
        for session_id, session in self._sessions.items():
            if now_ms - session.last_used_ms > EVICTION_IDLE_MS:
                self._sessions.pop(session_id).end()
                return True
            break
        return False
