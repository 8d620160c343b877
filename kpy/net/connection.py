"""One client connection, without its socket: bytes in, answers out, in the order of the requests.

Theory of operation. A driver (net/poller.py) asks `buffer()` where the next bytes go, puts them there and says so with
`received(count)`. Every complete frame in the buffer is handed to `dispatch`, which answers it

- now, with the list of buffers that make up the response frame,
- never (`None`: a Produce with acks=0), or
- later, with a `Pending`: the connection is then muted, as Apache Kafka mutes its channels, and takes up the frames
  behind it when the answer has come. So answers leave in the order of their requests. A pending answer that is
  completed with None will never come: the connection is `broken` and the driver closes it.

Some pending answers do not mute: they let the next request of the same API in. A Produce whose records are appended
waits for other replicas only, so that a connection appends as fast as it would without replicas; an OffsetCommit waits
for others that are written with it. Up to MAX_OVERTAKING answers may then be owed; they still leave in order, and any
other request waits for all of them.

What is to be sent lies in `outgoing`; the driver sends it, empties it and calls `resume()`. While more than
OUTGOING_LIMIT_BYTES lie there, no further request is taken up, so a client that asks and does not read costs a bounded
amount of memory.

Bytes are read into one buffer shared by all connections, since most reads hold whole requests. Only the start of an
incomplete frame moves to a buffer of the connection's own, which grows with the bytes that arrive and never by the size
that the frame declares; it stays for the next large frame until `trim()`.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from kpy.errors import WireError
from kpy.pending import Pending

Buffers = list[Any]
"""Bytes-like objects and file regions; each has a `len()` in bytes."""

Dispatch = Callable[[memoryview, int, int], "Buffers | Pending[Buffers | None] | None"]
"""Called with a buffer and the start and end of one request in it (without its size prefix)."""

SIZE_PREFIX_BYTES = 4
MIN_REQUEST_BYTES = 8
"""API key, version and correlation id: what every request has."""
FIRST_OWN_BUFFER_BYTES = 16 * 1024
OUTGOING_LIMIT_BYTES = 1024 * 1024
MAX_OVERTAKING = 100

_read_size = struct.Struct(">i").unpack_from
_read_key = struct.Struct(">h").unpack_from


class Driver(Protocol):
    """Who sends what a connection has to say."""

    def answer_has_come(self) -> None:
        """An answer that came later is `outgoing`, or the connection is `broken`."""


class _Owed:
    """An answer that is still to come, or that has come and waits for those before it."""

    __slots__ = ("answer", "pending")

    def __init__(self, pending: Pending[Buffers | None] | None, answer: Buffers | None = None) -> None:
        self.pending = pending
        self.answer = answer


class Connection:
    """Splits the byte stream into requests and keeps their answers in order. Raises WireError for a hopeless stream."""

    __slots__ = (
        "_dispatch",
        "_driver",
        "_filled",
        "_max_request_bytes",
        "_outgoing_bytes",
        "_owed",
        "_owed_api_key",
        "_own",
        "_shared",
        "broken",
        "outgoing",
        "waiting_for",
    )

    def __init__(self, dispatch: Dispatch, max_request_bytes: int, shared: memoryview, driver: Driver) -> None:
        self._dispatch = dispatch
        self._max_request_bytes = max_request_bytes
        self._shared = shared
        self._driver = driver
        self._own: bytearray | None = None
        self._filled = 0
        self._outgoing_bytes = 0
        self._owed: tuple[_Owed, ...] = ()
        """A tuple, though it is a queue: an empty one takes nothing, and this is seldom long."""
        self._owed_api_key = -1
        self.outgoing: Buffers = []
        self.waiting_for: Pending[Buffers | None] | None = None
        self.broken = False

    def buffer(self) -> memoryview:
        """Where the driver puts the next bytes; never empty."""
        own = self._own
        if own is None:
            return self._shared
        filled = self._filled
        if filled == len(own):
            grown = bytearray(2 * filled)
            grown[:filled] = own
            self._own = own = grown
        return memoryview(own)[filled:]

    def received(self, count: int) -> None:
        """`count` bytes were put into `buffer()`: answers every request that is complete now."""
        self._filled += count
        self._take_up_requests()

    def resume(self) -> None:
        """The outgoing bytes are sent: takes up the requests that waited behind them, or behind an answer."""
        self._outgoing_bytes = 0
        if self._filled and self.waiting_for is None:
            self._take_up_requests()

    def abandon(self) -> None:
        """The socket is gone: whoever prepares an answer is told."""
        self.waiting_for = None
        while self._owed:
            pending, self._owed = self._owed[0].pending, self._owed[1:]
            if pending is not None:
                pending.abandon()

    def trim(self) -> None:
        """Gives the own buffer back if nothing lies in it; called once in a while."""
        if self._filled == 0:
            self._own = None

    def _take_up_requests(self) -> None:
        view = self._shared if self._own is None else memoryview(self._own)
        end = self._filled
        position = 0
        while end - position >= SIZE_PREFIX_BYTES:
            if self.waiting_for is not None or self._outgoing_bytes > OUTGOING_LIMIT_BYTES:
                break
            size: int = _read_size(view, position)[0]
            if not MIN_REQUEST_BYTES <= size <= self._max_request_bytes:
                raise WireError(
                    f"request of {size} bytes; allowed are {MIN_REQUEST_BYTES} to {self._max_request_bytes}"
                )
            start = position + SIZE_PREFIX_BYTES
            if end - start < size:
                break
            if self._owed and (_read_key(view, start)[0] != self._owed_api_key or len(self._owed) >= MAX_OVERTAKING):
                self.waiting_for = self._owed[0].pending
                break
            position = start + size
            answer = self._dispatch(view, start, position)
            if answer is None:
                continue
            if isinstance(answer, Pending):
                owed = _Owed(answer)
                self._owed += (owed,)
                self._owed_api_key = _read_key(view, start)[0]
                if not answer.may_be_overtaken:
                    self.waiting_for = answer
                answer.deliver_to(partial(self._answer_has_come, owed))
            elif self._owed:
                self._owed += (_Owed(None, answer),)
            else:
                self._queue(answer)
        self._keep(view, position, end)

    def _keep(self, view: memoryview, position: int, end: int) -> None:
        """Keeps the bytes of requests that are incomplete, or that wait behind an unanswered one."""
        rest = self._filled = end - position
        if rest == 0:
            return
        if self._own is None:
            self._own = bytearray(max(FIRST_OWN_BUFFER_BYTES, rest))
            self._own[:rest] = view[position:end]
        elif position > 0:
            view[:rest] = view[position:end]

    def _queue(self, answer: Buffers) -> None:
        for item in answer:
            self._outgoing_bytes += len(item)
        self.outgoing += answer

    def _answer_has_come(self, owed: _Owed, answer: Buffers | None) -> None:
        owed.pending = None
        owed.answer = answer
        if answer is None:
            self.broken = True
        elif owed is not self._owed[0]:
            return
        while self._owed and self._owed[0].answer is not None:
            self._queue(self._owed[0].answer or [])
            self._owed = self._owed[1:]
        last = self._owed[-1].pending if self._owed else None
        # Whether a request that waits behind what is still owed may be taken up now is seen when it is looked at again.
        self.waiting_for = None if last is None or last.may_be_overtaken else last
        self._driver.answer_has_come()
