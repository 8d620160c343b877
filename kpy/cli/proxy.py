"""`kpy proxy`: stands between clients and a broker, passes everything on, and shows it.

Bytes go on as they come; a frame is held back only if addresses in it may have to be replaced. A client asks one broker
where all the others are and connects to them itself, so it would leave the proxy with the first Metadata response. So
every address of a broker in an answer becomes one of this proxy, which listens on a port of its own for each broker.
The host is the one at which the client has reached the proxy, so it can reach it there again.

Showing is a by-product and must not slow down what it shows. Frames are put into a queue that a thread decodes and
prints; what does not fit (MAX_QUEUED_FRAMES, MAX_QUEUED_BYTES) is not shown, and counted. A stalled terminal stalls the
thread and nobody else.
"""

import errno
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, TextIO, cast

import trio

from kpy.cli.arguments import Options
from kpy.cli.frames import MAX_FRAME_BYTES, Conversation, Frame, codec_of, decode_frame
from kpy.cli.style import Style, wants_colour
from kpy.cli.tree import Printer
from kpy.config_types import ConfigError
from kpy.listeners import from_flag, parse_listeners
from kpy.net.listener import listen
from kpy.wire.apis import Api
from kpy.wire.primitives import Message

MAX_BROKERS: Final = 1000
"""Ports that the proxy opens at most."""

MAX_QUEUED_FRAMES: Final = 10_000
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
MAX_SHOWN_BYTES: Final = 16 * 1024 * 1024
"""A larger frame is passed on without being shown."""

CLOSE_SECONDS: Final = 1.0
"""How long the end waits for what is not printed yet."""

ADDRESSES_IN: Final = {
    "Metadata": 0,
    "FindCoordinator": 0,
    "DescribeCluster": 0,
    "Produce": 10,
    "Fetch": 16,
    "ShareFetch": 0,
    "ShareAcknowledge": 0,
}
"""The responses that tell where brokers are, and the first version that does (KIP-951 for Produce and Fetch)."""

BACKLOG: Final = 128
_SIZE: Final = struct.Struct(">i")
_HEAD_BYTES: Final = 8
"""The size and the correlation id of a response."""

_FAILED: Final = 1
_MISUSED: Final = 2
_INTERRUPTED: Final = 128 + signal.SIGINT


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def proxy(options: Options) -> int:
    """Runs until a signal and returns the exit code: 130 for Ctrl-C, 1 if it cannot listen, 2 for wrong arguments."""
    try:
        address = _address("--listen", options.listen or "")
        upstream = _address("--upstream", options.upstream)
    except ConfigError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return _MISUSED
    printer = Printer(Style(in_colour=wants_colour(options.color, sys.stdout)), show_records=options.show_records)
    try:
        sockets = listen(address.host, address.port, BACKLOG)
    except OSError as error:
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        print(f"kpy: error: cannot listen on {address}: {reason}", file=sys.stderr)
        return _FAILED
    display = Display(printer, sys.stdout)
    try:
        return trio.run(_serve_until_signal, Proxy(address.host, display), sockets, upstream)
    finally:
        display.close()


async def _serve_until_signal(server: "Proxy", sockets: list[socket.socket], upstream: Address) -> int:
    """Serves until a signal, or until nobody reads the output any more. Returns the exit code."""
    received: list[int] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                async for number in signals:
                    received.append(number)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            await server.run(sockets, upstream)
            nursery.cancel_scope.cancel()
    return _INTERRUPTED if signal.SIGINT in received else 0


def _address(flag: str, text: str) -> Address:
    [endpoint] = parse_listeners(flag, from_flag(flag, text))
    return Address(endpoint.host, endpoint.port)


# Showing --------------------------------------------------------------------------------------------------------------


class Display:
    """Prints from a thread, so that whoever offers something to print never waits."""

    def __init__(self, printer: Printer, out: TextIO) -> None:
        self._printer = printer
        self._out = out
        self._queue: deque[tuple[str, Frame | None]] = deque()
        self._queued_bytes = 0
        self._left_out = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self.on_output_lost: Callable[[], object] = lambda: None
        """Called in the thread when nobody reads the output any more."""
        self._thread = threading.Thread(target=self._work, name="display", daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        """Queues a line of text."""
        self._offer(text, None)

    def frame(self, frame: Frame, prefix: str) -> None:
        """Queues a frame, or counts it as left out if the queue is full."""
        self._offer(f"{_clock(time.time())} {prefix} ", frame)

    def _offer(self, text: str, frame: Frame | None) -> None:
        size_bytes = len(frame.data) if frame else 0
        with self._changed:
            if len(self._queue) >= MAX_QUEUED_FRAMES or self._queued_bytes + size_bytes > MAX_QUEUED_BYTES:
                self._left_out += 1
                return
            self._queue.append((text, frame))
            self._queued_bytes += size_bytes
            self._changed.notify()

    def close(self) -> None:
        """Prints what is queued, as long as the output takes it at once."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        try:
            while (item := self._next()) is not None:
                text, frame, left_out = item
                if left_out:
                    print(f"kpy: {left_out:,} frames are not shown: they came faster than they print", file=self._out)
                if frame is None:
                    print(text, file=self._out)
                else:
                    for line in self._printer.lines(frame, decode_frame(frame), text):
                        print(line, file=self._out)
                self._out.flush()
        except BrokenPipeError:
            self.on_output_lost()

    def _next(self) -> tuple[str, Frame | None, int] | None:
        with self._changed:
            while not self._queue:
                if self._is_closed:
                    return None
                self._changed.wait()
            text, frame = self._queue.popleft()
            self._queued_bytes -= len(frame.data) if frame else 0
            left_out, self._left_out = self._left_out, 0
            return text, frame, left_out


def _clock(seconds: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}"


# Frames in passing ----------------------------------------------------------------------------------------------------


class Relay:
    """One direction of a connection: takes bytes as they come, tells the frames in them, and says what to send on.

    `on_frame` gets every frame when it is complete; of a large one, only the beginning. `replace` is asked about frames
    that `is_held` has said yes to at the sight of their beginning; it returns what is sent instead.
    """

    def __init__(
        self,
        on_frame: Callable[[memoryview], None],
        is_held: Callable[[memoryview], bool] = lambda _head: False,
        replace: Callable[[memoryview], bytes | memoryview] = lambda frame: frame,
    ) -> None:
        self._on_frame = on_frame
        self._is_held = is_held
        self._replace = replace
        self._buffer = bytearray()
        self._passing = 0
        """The bytes of a frame that is not held back, which are still to come."""
        self._seen = bytearray()
        """The bytes of that frame that went by, up to MAX_SHOWN_BYTES."""
        self._is_opaque = False

    def feed(self, data: bytes | bytearray) -> bytes:
        """What can be sent on, now that these bytes have come."""
        if self._is_opaque:
            return bytes(data)
        self._buffer += data
        return b"".join(self._ready())

    def _ready(self) -> Iterator[bytes | memoryview]:
        buffer = self._buffer
        while buffer:
            if self._passing:
                yield self._pass(min(self._passing, len(buffer)))
                continue
            if len(buffer) < _SIZE.size:
                return
            (size,) = _SIZE.unpack_from(buffer)
            if not 0 <= size <= MAX_FRAME_BYTES:
                # TLS, or not Kafka at all.
                self._is_opaque = True
                yield bytes(buffer)
                buffer.clear()
                return
            if len(buffer) < min(_HEAD_BYTES, _SIZE.size + size):
                return
            if not self._is_held(memoryview(bytes(buffer[_SIZE.size : _HEAD_BYTES]))):
                self._passing = _SIZE.size + size
            elif len(buffer) < _SIZE.size + size:
                return
            else:
                frame = memoryview(bytes(buffer[_SIZE.size : _SIZE.size + size]))
                del buffer[: _SIZE.size + size]
                replaced = self._replace(frame)
                self._on_frame(frame[:MAX_SHOWN_BYTES])
                yield _SIZE.pack(len(replaced))
                yield replaced

    def _pass(self, size: int) -> bytes:
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._passing -= size
        self._seen += piece[: max(0, MAX_SHOWN_BYTES - len(self._seen))]
        if not self._passing:
            frame = memoryview(bytes(self._seen))[_SIZE.size :]
            self._seen.clear()
            self._on_frame(frame)
        return piece


def structs_with_addresses(message: Message) -> Iterator[Any]:
    """The structs of a message, wherever they are, that have a host and a port."""
    if "host" in message.__slots__ and "port" in message.__slots__:
        yield message
    for name in message.__slots__:
        value: Any = getattr(message, name)
        if isinstance(value, Message):
            value = [value]
        if isinstance(value, list):
            for each in cast("list[Any]", value):
                if isinstance(each, Message):
                    yield from structs_with_addresses(each)


# Connections ----------------------------------------------------------------------------------------------------------


class Proxy:
    """Listens on `host`, on one port for each broker."""

    def __init__(self, host: str, display: Display) -> None:
        self._host = host
        self._display = display
        self._ports: dict[Address, int] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, sockets: list[socket.socket], upstream: Address) -> None:
        """Serves these listening sockets until it is cancelled, or nobody reads the output any more."""
        token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._display.on_output_lost = lambda: token.run_sync_soon(nursery.cancel_scope.cancel)
            self._stand_for(upstream, sockets)

    def port_of(self, broker: Address) -> int | None:
        """The port that stands for this broker, opened if need be; None if that is not possible."""
        if broker in self._ports:
            return self._ports[broker]
        if len(self._ports) >= MAX_BROKERS:
            return None
        try:
            return self._stand_for(broker, listen(self._host, 0, BACKLOG))
        except OSError as error:
            self._display.note(f"kpy: no port for {broker}: {error.strerror}")
            return None

    def _stand_for(self, broker: Address, sockets: list[socket.socket]) -> int:
        assert self._nursery is not None
        port: int = sockets[0].getsockname()[1]
        self._ports[broker] = port
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]
        self._nursery.start_soon(partial(trio.serve_listeners, partial(self._serve, broker), listeners))
        self._display.note(f"kpy: {Address(self._host, port)} stands for {broker}")
        return port

    async def _serve(self, broker: Address, client: trio.SocketStream) -> None:
        """One connection of a client, until either side closes it."""
        async with client:
            try:
                name = Address(*client.socket.getpeername()[:2])
                upstream = await trio.open_tcp_stream(*broker)
            except OSError as error:
                self._display.note(f"kpy: cannot connect a client to {broker}: {error}")
                return
            async with upstream:
                await self._relay(name, broker, client, upstream)

    async def _relay(
        self, name: Address, broker: Address, client: trio.SocketStream, upstream: trio.SocketStream
    ) -> None:
        conversation = Conversation()
        reached_at: str = client.socket.getsockname()[0]

        def on_request(data: memoryview) -> None:
            self._display.frame(conversation.on_request(data), f"{name} > {broker}")

        def on_response(data: memoryview) -> None:
            self._display.frame(conversation.on_response(data), f"{broker} > {name}")

        def is_held(head: memoryview) -> bool:
            request = conversation.request_of(head)
            return request is not None and tells_addresses(*request)

        def replace(data: memoryview) -> bytes | memoryview:
            request = conversation.request_of(data)
            return data if request is None else self._replaced(Frame(data, False, *request), reached_at)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, client, upstream, Relay(on_request), nursery.cancel_scope)
            await _pump(upstream, client, Relay(on_response, is_held, replace), nursery.cancel_scope)
            nursery.cancel_scope.cancel()

    def _replaced(self, frame: Frame, host: str) -> bytes | memoryview:
        """The response with this proxy's addresses in it. One that does not decode stays as it is."""
        decoded = decode_frame(frame)
        if frame.api is None or decoded.message is None or decoded.problem:
            return frame.data
        for struct_ in structs_with_addresses(decoded.message):
            if struct_.host and struct_.port > 0:
                port = self.port_of(Address(struct_.host, struct_.port))
                if port is not None:
                    struct_.host, struct_.port = host, port
        body = codec_of(frame.api).encode_response(decoded.message, decoded.version)
        return b"".join((frame.data[: decoded.start], *body))


def tells_addresses(api: Api, version: int) -> bool:
    """Whether the response to this request may say where a broker is."""
    return version >= ADDRESSES_IN.get(api.name, api.max_version + 1)


async def _pump(
    source: trio.SocketStream, target: trio.SocketStream, relay: Relay, connection: trio.CancelScope
) -> None:
    """Passes on what one side sends, to its end. If either side is gone without a goodbye, the connection ends."""
    try:
        async for data in source:
            if ready := relay.feed(data):
                await target.send_all(ready)
        await target.send_eof()
    except trio.BrokenResourceError:
        connection.cancel()
