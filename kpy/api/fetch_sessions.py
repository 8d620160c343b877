"""Incremental fetch sessions (KIP-227, Kafka class FetchSession): what a client wants is remembered, so it sends only
changes.

A session is a list of partitions with the client's last position in each, and what the client was last told. Requests
carry (session id, epoch):

    (0, -1)    no session wanted: the request lists everything, the answer too
    (any, 0)   close that session and open one with what this request lists; an answer with session id 0 refuses it
    (id, n)    the n-th incremental request: its topics are added or changed, its forgotten topics dropped
    (id, -1)   close that session; the request lists everything

An incremental answer lists only partitions that have records, an error, or a watermark that the client does not know.
"""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpy.errors import ErrorCode

if TYPE_CHECKING:  # the codec takes a while to import, and a broker that has just started has not been fetched from
    from kpy.wire.fetch import FetchPartition, FetchRequest, PartitionData

INITIAL_EPOCH = 0
FINAL_EPOCH = -1
MAX_EPOCH = 2**31 - 1
EVICTION_IDLE_MS = 120_000
"""A full cache gives up a session for a new one only after it was unused this long
(min.incremental.fetch.session.eviction.ms).
"""

TopicKey = tuple[str, bytes]
"""The topic's name, or its id from version 13 on; the other one is empty."""


class Wanted:
    """One partition of a fetch: where to read, and what the client was told of it last."""

    __slots__ = ("high_watermark", "log_start_offset", "position", "topic", "topic_id")

    def __init__(self, topic: str, topic_id: bytes, position: "FetchPartition") -> None:
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


@dataclass(slots=True)
class FetchSession:
    """The partitions are in the order of fetching: those served last go to the end, so that none starves."""

    session_id: int
    uses_topic_ids: bool
    last_used_ms: int
    next_epoch: int = 1
    wanted: dict[tuple[str, bytes, int], Wanted] = field(default_factory=dict[tuple[str, bytes, int], Wanted])

    def update(self, request: "FetchRequest") -> None:
        for topic in request.topics:
            for position in topic.partitions:
                key = (topic.topic, topic.topic_id, position.partition)
                known = self.wanted.get(key)
                if known is None:
                    self.wanted[key] = Wanted(topic.topic, topic.topic_id, position)
                else:
                    known.position = position
        for forgotten in request.forgotten_topics_data:
            for partition in forgotten.partitions:
                self.wanted.pop((forgotten.topic, forgotten.topic_id, partition), None)

    def move_to_end(self, served: Wanted) -> None:
        key = (served.topic, served.topic_id, served.position.partition)
        if self.wanted.pop(key, None) is not None:
            self.wanted[key] = served


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
            self._sessions.pop(request.session_id, None)
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
                del self._sessions[session_id]
                return True
            break
        return False
