"""Asking another broker: one connection, requests in order, answers in order.

A `PeerChannel` connects when it is asked first, and again after a failure, with a pause that grows from
RECONNECT_BACKOFF_MS to RECONNECT_BACKOFF_MAX_MS (reconnect.backoff.ms and its maximum). Several tasks may ask at once:
their requests go out one behind the other, and whoever sent first reads first. A question that fails, or is given up
half-way, closes the connection, because what comes next on it would be somebody else's answer.
"""

import importlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from kpy.errors import WireError
from kpy.wire.apis import APIS
from kpy.wire.primitives import Message

RECONNECT_BACKOFF_MS = 50
RECONNECT_BACKOFF_MAX_MS = 1_000
MAX_RESPONSE_BYTES = 128 * 1024 * 1024
"""More than replica.fetch.response.max.bytes and one batch, which may come whole in any case, ever are."""
RECEIVE_BYTES = 256 * 1024

_header = struct.Struct(">ihhih")
"""Size, API key, version, correlation id, length of the client id."""
_size = struct.Struct(">i")

Connect = Callable[[], Awaitable[trio.abc.Stream]]


class PeerError(Exception):
    """The other broker could not be asked, or did not answer in time. Whether it acted on the question is unknown."""


class PeerChannel:
    """A connection to one broker, kept up as long as questions are asked. `connect` raises OSError."""

    def __init__(self, connect: Connect, client_id: str, timeout_ms: int) -> None:
        self._connect = connect
        self._client_id = client_id.encode()
        self._timeout_ms = timeout_ms
        self._stream: trio.abc.Stream | None = None
        self._sending = trio.Lock()
        self._receiving = trio.Lock()
        self._correlation_id = 0
        self._received = bytearray()
        self._backoff_ms = 0
        self._not_before = -1.0

    async def open(self) -> None:
        """Connects, if there is no connection: a large question is better made then. Raises PeerError."""
        with trio.move_on_after(self._timeout_ms / 1000):
            try:
                async with self._sending:
                    if self._stream is None:
                        await self._connected()
            except OSError as error:
                raise PeerError(str(error) or type(error).__name__) from error
            return
        raise PeerError(f"no connection within {self._timeout_ms} ms")

    async def ask(self, key: int, request: Message, version: int) -> Any:
        """The response. Raises PeerError."""
        with trio.move_on_after(self._timeout_ms / 1000):
            is_in_step = False  # Whether what comes next on the connection answers what is sent next.
            try:
                async with self._sending:
                    stream, correlation_id = await self._send(key, request, version)
                # Locks are fair, and nothing runs between the two: who has sent first reads first.
                async with self._receiving:
                    if stream is not self._stream:
                        raise PeerError("the connection was closed")
                    frame = await self._receive_frame(stream)
                answer = _decoded(key, version, frame, correlation_id)
                is_in_step = True
                return answer
            except PeerError:
                is_in_step = True
                raise
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, WireError) as error:
                raise PeerError(str(error) or type(error).__name__) from error
            finally:
                if not is_in_step:
                    self.close()
        raise PeerError(f"no answer within {self._timeout_ms} ms")

    async def _send(self, key: int, request: Message, version: int) -> tuple[trio.abc.Stream, int]:
        stream = self._stream or await self._connected()
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        body = importlib.import_module(f"kpy.wire.{APIS[key].module}").encode_request(request, version)
        flexible_since = APIS[key].flexible_since
        tags = b"\0" if flexible_since is not None and version >= flexible_since else b""
        payload = b"".join([self._client_id, tags, *body])
        head = _header.pack(
            len(payload) + _header.size - _size.size, key, version, self._correlation_id, len(self._client_id)
        )
        await stream.send_all(head + payload)
        return stream, self._correlation_id

    async def _connected(self) -> trio.abc.Stream:
        await trio.sleep_until(self._not_before)
        self._backoff_ms = min(max(RECONNECT_BACKOFF_MS, 2 * self._backoff_ms), RECONNECT_BACKOFF_MAX_MS)
        self._not_before = trio.current_time() + self._backoff_ms / 1000
        try:
            self._stream = await self._connect()
        except (ValueError, OverflowError) as error:
            raise PeerError(f"no address to connect to: {error}") from error
        self._received.clear()
        return self._stream

    async def _receive_frame(self, stream: trio.abc.Stream) -> memoryview:
        received = self._received
        while len(received) < _size.size:
            await self._receive_more(stream)
        (size,) = _size.unpack_from(received)
        if not _size.size <= size <= MAX_RESPONSE_BYTES:
            raise WireError(f"a response of {size} bytes; allowed are 4 to {MAX_RESPONSE_BYTES}")
        while len(received) < _size.size + size:
            await self._receive_more(stream)
        frame = bytes(memoryview(received)[_size.size : _size.size + size])
        del received[: _size.size + size]
        self._backoff_ms = 0
        return memoryview(frame)

    async def _receive_more(self, stream: trio.abc.Stream) -> None:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise trio.BrokenResourceError("the connection was closed")
        self._received += data

    def close(self) -> None:
        """Closes the connection, if there is one; the next question opens another."""
        stream, self._stream = self._stream, None
        if isinstance(stream, trio.SocketStream):
            stream.socket.close()


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
    return importlib.import_module(f"kpy.wire.{APIS[key].module}").decode_response(frame, version, position)
