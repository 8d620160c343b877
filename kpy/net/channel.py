"""A connection's socket: reads into a `Connection`, sends what it has to say, closes when either end is done.

All methods are synchronous and non-blocking; the poller calls them when the socket is ready. File regions of a Fetch go
out by sendfile, straight from the page cache, unless they are so small that copying them is cheaper than a system call.
In a busy round small answers are handed over to the sender (net/sender.py) and count as sent. Until it has tried them,
nothing else is sent on the socket and it stays open: whoever wants either waits, which is short. What the sender could
not send comes back, and goes before everything that is outgoing.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable

from kpy.errors import StorageError, WireError
from kpy.net.connection import Buffers, Connection, Dispatch
from kpy.net.sender import HANDED_OVER_LIMIT_BYTES, Sender
from kpy.storage.fs import TOO_SHORT, Buffer, FileRegion

log = logging.getLogger("kpy.net")

COPY_LIMIT_BYTES = 64 * 1024
"""File regions up to this size are read and sent together with what is around them: one system call less."""

LONG_ANSWER_BYTES = 256 * 1024
"""A client that is sent a file region of this size has to read it, which takes it a while, before it asks again."""

READS_IN_A_ROW = 4
"""A busy connection is read this often before the others get their turn."""


class Channel:
    """One accepted socket. `wants_writable` and `closed` tell the poller what to wait for, which it notes in
    `watched_for`; `sent_long_answer` that the client will not ask again at once: the poller, which alone wants to know,
    takes that back.
    """

    __slots__ = (
        "_on_answer",
        "_on_change",
        "_sender",
        "_ticket",
        "closed",
        "connection",
        "fd",
        "last_active",
        "peer_host",
        "sent_long_answer",
        "sock",
        "wants_writable",
        "watched_for",
    )

    def __init__(
        self,
        sock: socket.socket,
        peer_host: str,
        dispatch: Dispatch,
        max_request_bytes: int,
        shared: memoryview,
        on_change: "Callable[[Channel], None]",
        on_answer: "Callable[[Channel], None]",
        sender: Sender | None,
    ) -> None:
        """`on_answer` is told of an answer that came later: it calls `send_answers`, now or soon."""
        self.sock = sock
        self.fd = sock.fileno()
        self.peer_host = peer_host
        self.wants_writable = False
        self.watched_for = 0
        self.closed = False
        self.sent_long_answer = False
        self.last_active = 0.0
        self._on_change = on_change
        self._on_answer = on_answer
        self._sender = sender
        self._ticket = 0
        self.connection = Connection(dispatch, max_request_bytes, shared, self)

    def on_readable(self, now: float) -> None:
        """Reads and answers until the socket is empty, the connection waits, or others deserve a turn."""
        self.last_active = now
        connection = self.connection
        for _ in range(READS_IN_A_ROW):
            buffer = connection.buffer()
            try:
                count = self.sock.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if count == 0:
                self.close()
                return
            self._guarded(connection.received, count)
            if connection.outgoing:
                self.send()
            if self.closed or self.wants_writable or connection.waiting_for is not None or count < len(buffer):
                return

    def on_writable(self) -> None:
        self.wants_writable = False
        if not self.connection.outgoing:
            self._guarded(self.connection.resume)
        self.send()
        if not self.wants_writable:
            self._on_change(self)

    def send(self) -> None:
        """Sends what is outgoing, takes up what waited behind it, and so on until the socket is full or all is said."""
        connection = self.connection
        while connection.outgoing and not self.closed:
            if self._ticket and self._is_held_up():
                return
            try:
                connection.outgoing = self._send_some(connection.outgoing)
            except OSError as error:
                log.debug("connection of %s broke while sending: %s", self.peer_host, error)
                self.close()
                return
            if connection.outgoing:
                self.wants_writable = True
                self._on_change(self)
                return
            self._guarded(connection.resume)

    def region_to_send(self) -> FileRegion | None:
        """What the full socket takes next, if that is of a file; whoever sends of it says so by `region_was_sent`."""
        if self.wants_writable and not self.closed:
            first = self.connection.outgoing[0]
            return first if type(first) is FileRegion else None
        return None

    def region_was_sent(self, count: int) -> None:
        """The first `count` bytes of `region_to_send`. If these are all, `on_writable` is to be called next."""
        outgoing = self.connection.outgoing
        rest = outgoing[0].after(count)
        self.connection.outgoing = [rest, *outgoing[1:]] if rest.size else outgoing[1:]

    def close(self) -> None:
        """Closes the socket; a wait for an answer is given up."""
        if not self.closed:
            self.closed = True
            self.connection.abandon()
            self._on_change(self)
            if self._ticket:
                self._is_held_up()  # Its number may be another connection's as soon as it is closed.
            self.sock.close()

    def was_cut_short(self, rest: memoryview, error: int) -> None:
        """The sender has not sent `rest`, because the socket is full or, by an errno that is not 0, broken."""
        if self.closed:
            return
        if error:
            log.debug("connection of %s broke while sending: %s", self.peer_host, os.strerror(error))
            self.close()
            return
        self.connection.outgoing = [rest, *self.connection.outgoing]
        self.wants_writable = True
        self._on_change(self)

    def _is_held_up(self) -> bool:
        """Waits until the sender has tried what it was given last. Whether the socket is full now, or closed."""
        ticket, self._ticket = self._ticket, 0
        sender = self._sender
        if sender is not None and sender.wait(ticket):
            sender.take_back()
        return self.wants_writable or self.closed

    def answer_has_come(self) -> None:
        self._on_answer(self)

    def send_answers(self) -> None:
        """Answers have come since the last send."""
        if self.connection.broken:
            self.close()
        elif not self.closed and not self.wants_writable:
            self.send()
            self._on_change(self)

    def _guarded(self, step: Callable[..., None], *arguments: int) -> None:
        """A request that cannot be answered ends this connection and no other; the answers before it still go out."""
        try:
            step(*arguments)
            return
        except (WireError, StorageError) as error:
            log.warning("closing the connection of %s: %s", self.peer_host, error)
        except Exception:  # A fault in one request's handler must not take the other clients down.
            log.exception("closing the connection of %s: its request met a fault in kpy", self.peer_host)
        answered, self.connection.outgoing = self.connection.outgoing, []
        if answered and not (self._ticket and self._is_held_up()):
            with contextlib.suppress(OSError):
                self._send_some(answered)
        self.close()

    def _send_some(self, items: Buffers) -> Buffers:
        """Sends until done or the socket is full. Returns what is left."""
        if len(items) == 1 and type(items[0]) is bytes:
            return self._send_bytes(items[0])
        plain: Buffers = []
        for index, item in enumerate(items):
            if type(item) is not FileRegion:
                plain.append(item)
                continue
            if len(item) <= COPY_LIMIT_BYTES:
                plain.append(item.read_whole())
                continue
            left = self._send_bytes(b"".join(plain), socket.MSG_MORE) if plain else []
            plain = []
            left = [*left, item] if left else self._send_region(item)
            if left:
                return left + items[index + 1 :]
        return self._send_bytes(plain[0] if len(plain) == 1 else b"".join(plain)) if plain else []

    def _send_bytes(self, data: Buffer, flags: int = 0) -> Buffers:
        sender = self._sender
        # With flags a file region follows, which the loop sends; and only bytes stay as they are.
        if (
            sender is not None
            and sender.is_open
            and not flags
            and type(data) is bytes
            and len(data) <= HANDED_OVER_LIMIT_BYTES
        ):
            self._ticket = sender.hand_over(self.fd, data)
            if self._ticket:
                return []
        try:
            sent = self.sock.send(data, flags)
        except BlockingIOError:
            return [data]
        return [] if sent == len(data) else [memoryview(data)[sent:]]

    def _send_region(self, region: FileRegion) -> Buffers:
        if region.size >= LONG_ANSWER_BYTES:
            self.sent_long_answer = True
        try:
            sent = os.sendfile(self.fd, region.file.fileno(), region.position, region.size)
        except BlockingIOError:
            return [region]
        if sent == 0:
            raise OSError(TOO_SHORT)
        # Less than all: the socket is full, which another call would only say again.
        return [] if sent == region.size else [region.after(sent)]
