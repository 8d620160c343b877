"""What a group shard is told, and what it wants done: the vocabulary between the pure machine and its shell.

The shell hands over one event at a time and carries out the `Effects` it gets back in one fixed order: append the
records, replay them into the machine, wait until they are committed, send the replies. If the append fails it
replays nothing, and refuses whoever the replies were for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kpy.group.transitions import Move


class Request(NamedTuple):
    """A client's request: the wire object itself, and what the connection knows about the client."""

    message: Any
    """A request class of kpy.wire that a shard answers; its type picks the handler."""
    version: int
    client_id: str
    client_host: str
    token: object
    """Names whom to answer. Opaque here; the shell makes it and gets it back in exactly one `Reply`."""


class Tick(NamedTuple):
    """Time has passed: every deadline at or before now is due."""


class TopicsDeleted(NamedTuple):
    """These topics are gone, and with them whatever was committed for them."""

    names: frozenset[str]


Event = Request | Tick | TopicsDeleted


class Reply(NamedTuple):
    """One request's answer. A token whose client has gone away is the shell's to drop."""

    token: object
    response: Any


GroupRecord = tuple[bytes, bytes | None]
"""A record of __consumer_offsets: key, and value or None for a tombstone."""


@dataclass(slots=True)
class Effects:
    """What one event leads to.

    `moves` are the changes of state on the way, for whoever reads the log. `reads_offsets` marks an answer that shows
    committed offsets: it must wait until everything appended so far is committed, because a new coordinator could not
    know an offset that was shown too early.
    """

    records: list[GroupRecord] = field(default_factory=list["GroupRecord"])
    replies: list[Reply] = field(default_factory=list["Reply"])
    moves: list[Move] = field(default_factory=list["Move"])
    reads_offsets: bool = False

    def append(self, records: Iterable[GroupRecord]) -> None:
        self.records.extend(records)

    def reply(self, token: object, response: Any) -> None:
        self.replies.append(Reply(token, response))
