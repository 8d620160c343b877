"""What a coordinator's machine is told, and what it wants done: the words between the pure machines and their shell.

The shell (kpy/coordinator.py) hands over one event at a time and carries out the `Effects` it gets back in one fixed
order: append the records, replay them into the machine, wait until they are committed, act, send the replies. If the
append fails it replays nothing, and refuses whoever the replies were for. Each request makes a few of these objects, so
they are neither dataclasses nor named tuples, which take three times as long to make. Kafka interfaces CoordinatorShard
and CoordinatorResult.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1


class Request:
    """A client's request: the wire object itself, and what the connection knows about the client."""

    __slots__ = ("client_host", "client_id", "message", "token", "version")

    def __init__(self, message: Any, version: int, client_id: str, client_host: str, token: Any) -> None:
        self.message = message
        """Of a class of kpy.wire that the machine answers; its type picks the handler."""
        self.version = version
        self.client_id = client_id
        self.client_host = client_host
        self.token = token
        """Names whom to answer. Opaque here; the shell makes it and gets it back in exactly one `Reply`."""


class Tick(NamedTuple):
    """Time has passed: every deadline at or before now is due."""


Reply = tuple[Any, Any]
"""One request's answer: its token and the response. A token whose client has gone away is the shell's to drop."""

StateRecord = tuple[bytes, bytes | None]
"""A record of a coordinator's topic: key, and value or None for a tombstone."""

RECORD_OVERHEAD_BYTES = 32
"""More than what one record takes in a batch besides its key and its value."""


def size_in_batch(record: StateRecord) -> int:
    """In bytes, at most."""
    key, value = record
    return len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES


class Effects:
    """What one event leads to.

    `reads_state` marks an answer that shows what the log says: it must wait until everything appended so far is
    committed, because a new coordinator could not know what was shown too early. `producer_id` makes the records a part
    of that producer's transaction. `actions` are the shell's to carry out once the records are committed. `notes` are
    worth a line each in the broker's log. With `replies_stand` the replies are true even if nothing can be written.
    """

    __slots__ = (
        "actions",
        "notes",
        "producer_epoch",
        "producer_id",
        "reads_state",
        "records",
        "replies",
        "replies_stand",
    )

    def __init__(self) -> None:
        self.records: list[StateRecord] = []
        self.replies: list[Reply] = []
        self.actions: list[Any] = []
        self.notes: list[Any] = []
        self.reads_state = False
        self.producer_id = NO_PRODUCER_ID
        self.producer_epoch = NO_PRODUCER_EPOCH
        self.replies_stand = False

    def append(self, records: Iterable[StateRecord]) -> None:
        self.records.extend(records)

    def reply(self, token: Any, response: Any) -> None:
        self.replies.append((token, response))


class Waiting(Protocol):
    """A request that a machine has parked."""

    @property
    def token(self) -> Any: ...


class Machine(Protocol):
    """One partition of a coordinator's topic. `replay` alone changes durable state."""

    def next_deadline_ms(self) -> int | None: ...
    def handle(self, event: Any, now_ms: int) -> Effects: ...
    def replay(self, key: bytes, value: bytes | None, producer_id: int = NO_PRODUCER_ID) -> None: ...
    def replay_end_of_transaction(self, producer_id: int, *, committed: bool) -> None: ...
    def loaded(self, now_ms: int) -> Effects: ...
    def waiting(self) -> Iterator[Waiting]: ...
    def __len__(self) -> int: ...
