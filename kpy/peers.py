"""Asking another broker: one connection, requests in order, answers in order.

A `PeerChannel` connects when it is asked first, and again after a failure, with a pause that grows from
RECONNECT_BACKOFF_MS to RECONNECT_BACKOFF_MAX_MS (reconnect.backoff.ms and its maximum). Several tasks may ask at once:
their requests go out one behind the other, and whoever sent first reads first. A question that fails, or is given up
half-way, closes the connection, because what comes next on it would be somebody else's answer.

A follower asks again as soon as it is answered, for every record of a producer who waits for it. So that goes on in a
conversation: its answers are taken in by the rounds of the poller (net/poller.py), which has nothing go through the
scheduler of trio as long as the next question is known at once.
"""

import functools
import importlib
import socket
import struct
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol

import trio

from kpy.errors import WireError
from kpy.storage.fs import Buffer
from kpy.wire.apis import APIS
from kpy.wire.primitives import Message

RECONNECT_BACKOFF_MS = 50
RECONNECT_BACKOFF_MAX_MS = 1_000
MAX_RESPONSE_BYTES = 128 * 1024 * 1024
"""More than replica.fetch.response.max.bytes and one batch, which may come whole in any case, ever are."""
RECEIVE_BYTES = 64 * 1024
"""What is read at once at the start of an answer; the rest of a longer one goes where it stays."""

_header = struct.Struct(">ihhih")
"""Size, API key, version, correlation id, length of the client id."""
_size = struct.Struct(">i")

Connect = Callable[[], Awaitable[trio.SocketStream]]


class PeerError(Exception):
    """The other broker could not be asked, or did not answer in time. Whether it acted on the question is unknown."""


class Readers(Protocol):
    """Who calls back when a descriptor can be read: the poller."""

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None: ...
    def unwatch(self, fd: int) -> None: ...


class _Socket:
    """Frames on a connected socket. Raises OSError, and WireError for a stream that cannot be one of answers."""

    def __init__(self, stream: trio.SocketStream) -> None:
        # From here on without trio's wrapper, which goes through the scheduler after each call that need not wait.
        self._sock = socket.socket(fileno=stream.socket.detach())
        self._sock.setblocking(False)
        self.fd = self._sock.fileno()
        self._received = bytearray(RECEIVE_BYTES)
        self._count = 0
        self._frame: memoryview | None = None
        """Of the answer that has begun, once its size is known; the first `_filled` bytes are there."""
        self._filled = 0

    def send_at_once(self, data: Buffer) -> memoryview:
        """What the socket has no room for is returned."""
        left = memoryview(data)
        with suppress(BlockingIOError):
            while left:
                sent = self._sock.send(left)  # Not as a bound of the slice: mypyc would send twice.
                left = left[sent:]
        return left

    async def send(self, data: Buffer) -> None:
        """Goes through the scheduler only when the socket is full."""
        while left := self.send_at_once(data):
            await trio.lowlevel.wait_writable(self._sock)
            data = left

    async def receive_frame(self) -> memoryview:
        """The next answer, without its size."""
        while (frame := self.next_frame()) is None:
            # Waits first: what has just been asked is not answered yet, and somebody else may work meanwhile.
            await trio.lowlevel.wait_readable(self._sock)
            self.receive()
        return frame

    def next_frame(self) -> memoryview | None:
        """The next answer, without its size, if all of it has been received."""
        frame = self._frame
        if frame is None:
            if self._count < _size.size:
                return None
            (size,) = _size.unpack_from(self._received)
            if not _size.size <= size <= MAX_RESPONSE_BYTES:
                raise WireError(f"a response of {size} bytes; allowed are 4 to {MAX_RESPONSE_BYTES}")
            end = _size.size + size
            frame = self._frame = memoryview(bytearray(size))
            self._filled = filled = min(self._count, end) - _size.size
            frame[:filled] = self._received[_size.size : _size.size + filled]
            rest = self._received[end : self._count]  # Of the next answer, which somebody else has asked for.
            self._received[: len(rest)] = rest
            self._count = len(rest)
        if self._filled < len(frame):
            return None
        self._frame = None
        return frame

    def receive(self) -> None:
        """Takes in what is there, at most what belongs to the answer that has begun."""
        frame = self._frame
        buffer = memoryview(self._received)[self._count :] if frame is None else frame[self._filled :]
        try:
            count = self._sock.recv_into(buffer)
        except BlockingIOError:
            return
        if count == 0:
            raise ConnectionError("the connection was closed")
        if frame is None:
            self._count += count
        else:
            self._filled += count

    def close(self) -> None:
        """Whoever waits for something on it gets trio.ClosedResourceError."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class _Conversation:
    """Answers and the next questions on a connection that nobody else uses meanwhile, in the rounds of `readers`."""

    def __init__(self, readers: Readers, connection: _Socket, reply: Callable[[memoryview], bytes | None]) -> None:
        self._readers = readers
        self._connection = connection
        self._reply = reply
        self._problem: Exception | None = None
        self._unsent = memoryview(b"")
        self._over = trio.Event()
        self._asked_at = trio.current_time()
        readers.watch(connection.fd, self._on_readable)

    async def until_over(self, timeout_s: float) -> memoryview:
        """What is left to be sent of a question; nothing after an answer that none follows.

        Raises TimeoutError when an answer takes longer than `timeout_s`, and what goes wrong with one.
        """
        try:
            while not self._over.is_set():
                deadline = self._asked_at + timeout_s
                if trio.current_time() >= deadline:
                    raise TimeoutError(f"no answer within {1000 * timeout_s:.0f} ms")
                with trio.move_on_at(deadline):
                    await self._over.wait()
        finally:
            self._end()
        if self._problem is not None:
            raise self._problem
        return self._unsent

    def _on_readable(self) -> None:
        try:
            self._connection.receive()
            frame = self._connection.next_frame()
            if frame is None:
                return
            question = self._reply(frame)
            if question is not None:
                self._asked_at = trio.current_time()
                self._unsent = self._connection.send_at_once(question)
            if question is None or self._unsent:
                self._end()
        except Exception as error:  # noqa: BLE001 - it is raised where the conversation is waited for
            self._problem = error
            self._end()

    def _end(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._readers.unwatch(self._connection.fd)


class PeerChannel:
    """A connection to one broker, kept up as long as questions are asked. `connect` raises OSError."""

    def __init__(self, connect: Connect, client_id: str, timeout_ms: int, readers: Readers | None = None) -> None:
        """Without `readers` there are no conversations."""
        self._connect = connect
        self._client_id = client_id.encode()
        self._timeout_ms = timeout_ms
        self._readers = readers
        self._socket: _Socket | None = None
        self._sending = trio.Lock()
        self._receiving = trio.Lock()
        self._correlation_id = 0
        self._backoff_ms = 0
        self._not_before = -1.0

    async def open(self) -> None:
        """Connects, if there is no connection: a large question is better made then. Raises PeerError."""
        with trio.move_on_after(self._timeout_ms / 1000):
            try:
                async with self._sending:
                    if self._socket is None:
                        await self._connected()
            except OSError as error:
                raise PeerError(str(error) or type(error).__name__) from error
            return
        raise PeerError(f"no connection within {self._timeout_ms} ms")

    async def ask(self, key: int, request: Message, version: int) -> Any:
        """The response. Raises PeerError."""
        with trio.move_on_after(self._timeout_ms / 1000), self._in_step():
            await _acquire(self._sending)
            try:
                connection = self._socket or await self._connected()
                question = self._encoded(key, version, request)
                correlation_id = self._correlation_id
                await connection.send(question)
            finally:
                self._sending.release()
            # Locks are fair, and nothing runs between the two: who has sent first reads first.
            await _acquire(self._receiving)
            try:
                if connection is not self._socket:
                    raise PeerError("the connection was closed")
                frame = await connection.receive_frame()
            finally:
                self._receiving.release()
            self._backoff_ms = 0
            return _decoded(key, version, frame, correlation_id)
        raise PeerError(f"no answer within {self._timeout_ms} ms")

    async def converse(self, key: int, request: Message, version: int, reply: Callable[[Any], Message | None]) -> None:
        """Asks, and asks on what `reply` makes of each response, until that is None. All that others ask waits for it.

        `reply` is called in a round of the poller. Raises PeerError, and what `reply` raises; an OSError of its own
        counts as one of the connection.
        """
        readers = self._readers
        assert readers is not None, "this channel is for single questions"

        def answered(frame: memoryview) -> bytes | None:
            self._backoff_ms = 0
            question = reply(_decoded(key, version, frame, self._correlation_id))
            return None if question is None else self._encoded(key, version, question)

        with self._in_step():
            async with self._sending, self._receiving:
                unsent = memoryview(self._encoded(key, version, request))
                while unsent:
                    connection = await self._sent(unsent)
                    unsent = await _Conversation(readers, connection, answered).until_over(self._timeout_ms / 1000)

    async def _sent(self, data: memoryview) -> _Socket:
        """On this connection, a new one if there is none."""
        with trio.move_on_after(self._timeout_ms / 1000):
            connection = self._socket or await self._connected()
            await connection.send(data)
            return connection
        raise TimeoutError(f"nothing could be asked within {self._timeout_ms} ms")

    @contextmanager
    def _in_step(self) -> Generator[None]:
        """Closes the connection unless what comes next on it answers what is sent next. Failures become PeerError."""
        is_in_step = False
        try:
            yield
            is_in_step = True
        except PeerError:
            is_in_step = True
            raise
        except (OSError, trio.ClosedResourceError, WireError) as error:
            raise PeerError(str(error) or type(error).__name__) from error
        finally:
            if not is_in_step:
                self.close()

    def _encoded(self, key: int, version: int, request: Message) -> bytes:
        self._correlation_id = correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        body = _codec(key).encode_request(request, version)
        flexible_since = APIS[key].flexible_since
        tags = b"\0" if flexible_since is not None and version >= flexible_since else b""
        payload = b"".join([self._client_id, tags, *body])
        size = len(payload) + _header.size - _size.size
        return _header.pack(size, key, version, correlation_id, len(self._client_id)) + payload

    async def _connected(self) -> _Socket:
        await trio.sleep_until(self._not_before)
        self._backoff_ms = min(max(RECONNECT_BACKOFF_MS, 2 * self._backoff_ms), RECONNECT_BACKOFF_MAX_MS)
        self._not_before = trio.current_time() + self._backoff_ms / 1000
        try:
            self._socket = _Socket(await self._connect())
        except (ValueError, OverflowError) as error:
            raise PeerError(f"no address to connect to: {error}") from error
        return self._socket

    def close(self) -> None:
        """Closes the connection, if there is one; the next question opens another."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()


class ControllerChannel:
    """Asks whoever is the controller. `find` says who that is, as far as is known, or a negative number."""

    def __init__(self, find: Callable[[], int], open_peer: Callable[[int], PeerChannel]) -> None:
        self._find = find
        self._open_peer = open_peer
        self._controller = -1
        self._peer: PeerChannel | None = None

    async def ask(self, key: int, request: Message, version: int) -> Any:
        """The response. Raises PeerError, also while nobody is known to be the controller."""
        controller = self._find()
        if controller < 0:
            raise PeerError("nobody is known to be the controller")
        if self._peer is None or controller != self._controller:
            self.close()
            self._controller, self._peer = controller, self._open_peer(controller)
        return await self._peer.ask(key, request, version)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()


async def _acquire(lock: trio.Lock) -> None:
    """Without going through the scheduler if the lock is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


@functools.cache
def _codec(key: int) -> ModuleType:
    return importlib.import_module(f"kpy.wire.{APIS[key].module}")


def _decoded(key: int, version: int, frame: memoryview, correlation_id: int) -> Any:
    (answered,) = _size.unpack_from(frame)
    if answered != correlation_id:
        raise WireError(f"an answer to request {answered}, not to {correlation_id}")
    flexible_since = APIS[key].flexible_since
    position = _size.size
    if flexible_since is not None and version >= flexible_since:
        if len(frame) <= position or frame[position]:
            raise WireError("unknown tagged fields in a response header")
        position += 1
    return _codec(key).decode_response(frame, version, position)
