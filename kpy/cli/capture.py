"""The Kafka frames in captured TCP connections.

A connection's client is who sent the SYN, or, where the capture began later, who sends what looks like a request. Each
direction is a run of frames with their sizes in front. Where bytes are missing, the next segment that begins like a
frame is where reading goes on: for requests a known API and version, for responses the correlation id of a request.

What is not Kafka is counted and left alone. Memory is bounded by MAX_CONNECTIONS, of which the oldest goes first, and
by MAX_BUFFERED_BYTES of incomplete frames over all of them.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kpy.cli.frames import MAX_FRAME_BYTES, Conversation, Frame, looks_like_request
from kpy.cli.pcap import Address, Packet, Segment, Stream, tcp_segment

MAX_CONNECTIONS: Final = 10_000
MAX_BUFFERED_BYTES: Final = 2 * MAX_FRAME_BYTES

_SIZE: Final = struct.Struct(">i")
_HEAD_BYTES: Final = 12
"""The size of a frame, and as much of a request as tells whether it is one."""


class Sighting(NamedTuple):
    """A frame, and when and between whom it was seen."""

    time: float
    source: Address
    destination: Address
    frame: Frame


class _Direction:
    """What one side sends."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.buffer = bytearray()
        self.is_in_step = False
        """Whether the buffer begins with a frame."""
        self.is_closed = False


class _Connection:
    def __init__(self) -> None:
        self.conversation = Conversation()
        self.client: Address | None = None
        self.sides: dict[Address, _Direction] = {}
        self.foreign = ""
        """What it is if it is not Kafka: TLS, or something else."""


class Capture:
    """Puts packets together. `notes` says afterwards what there was beside frames."""

    def __init__(self) -> None:
        self._connections: dict[frozenset[Address], _Connection] = {}
        self._buffered_bytes = 0
        self._foreign: Counter[str] = Counter()
        self._frames = 0

    def frames(self, packets: Iterable[Packet]) -> Iterator[Sighting]:
        """The frames in these packets, each when its last byte was seen."""
        time = 0.0
        for packet in packets:
            time = packet.time
            segment = tcp_segment(packet)
            if segment is not None:
                yield from self._on_segment(segment, time)
        # What still waits for a missing segment waits in vain.
        for connection in self._connections.values():
            for source, side in connection.sides.items():
                while data := side.stream.skip_gap():
                    yield from self._read(connection, source, side, data, time)

    def notes(self) -> Iterator[str]:
        """What a person should know about the rest of the capture."""
        if not self._frames:
            yield "no Kafka frames were found in the capture"
        for kind, count in self._foreign.items():
            connections = "1 connection" if count == 1 else f"{count} connections"
            yield f"{connections} left out: {kind}"
        unfinished = sum(bool(side.buffer) for each in self._connections.values() for side in each.sides.values())
        if unfinished:
            yield f"{'1 frame is' if unfinished == 1 else f'{unfinished} frames are'} incomplete at the end"

    def _on_segment(self, segment: Segment, time: float) -> Iterator[Sighting]:
        key = frozenset((segment.source, segment.destination))
        if len(key) != 2:
            return
        if segment.is_syn and not segment.is_ack:
            # The ports may have been used before.
            self._drop(key)
        connection = self._connections.get(key)
        if connection is None:
            if len(self._connections) >= MAX_CONNECTIONS:
                self._drop(next(iter(self._connections)))
            connection = self._connections[key] = _Connection()
            connection.sides = {segment.source: _Direction(), segment.destination: _Direction()}
        side = connection.sides[segment.source]
        if segment.is_syn:
            connection.client = segment.destination if segment.is_ack else segment.source
            side.is_in_step = True
        data = side.stream.add(segment)
        if data and not connection.foreign:
            yield from self._read(connection, segment.source, side, data, time)
        side.is_closed |= segment.is_last
        if all(each.is_closed for each in connection.sides.values()):
            self._drop(key)

    def _drop(self, key: frozenset[Address]) -> None:
        connection = self._connections.pop(key, None)
        if connection is not None:
            for side in connection.sides.values():
                self._clear(side)

    def _clear(self, side: _Direction) -> None:
        self._buffered_bytes -= len(side.buffer)
        side.buffer.clear()

    def _read(
        self, connection: _Connection, source: Address, side: _Direction, data: bytes, time: float
    ) -> Iterator[Sighting]:
        """Takes what continues a direction, and returns the frames that it completes."""
        if side.stream.has_gap:
            self._clear(side)
            side.is_in_step = False
        if connection.client not in (None, source) and not connection.conversation.has_begun:
            side.is_in_step = False
            return
        if not side.is_in_step and not side.buffer and not self._begins_frame(connection, source, data):
            return
        side.is_in_step = True
        side.buffer += data
        self._buffered_bytes += len(data)
        if not connection.conversation.has_begun and source == connection.client:
            if len(side.buffer) < _HEAD_BYTES:
                return
            if not self._begins_frame(connection, source, side.buffer):
                self._leave_out(connection, side.buffer)
                return
        [destination] = (address for address in connection.sides if address != source)
        for frame in self._complete_frames(connection, source, side):
            self._frames += 1
            yield Sighting(time, source, destination, frame)
        if self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._clear(side)
            side.is_in_step = False

    def _begins_frame(self, connection: _Connection, source: Address, data: bytes | bytearray) -> bool:
        """Whether these bytes look like the beginning of a frame. Whoever sends a request first is the client."""
        if len(data) < _HEAD_BYTES:
            return False
        (size,) = _SIZE.unpack_from(data)
        if not 0 < size <= MAX_FRAME_BYTES:
            return False
        head = memoryview(data)[4:_HEAD_BYTES]
        if connection.client in (None, source) and looks_like_request(head):
            connection.client = source
            return True
        return (
            connection.client is not None
            and connection.client != source
            and connection.conversation.request_of(head) is not None
        )

    def _leave_out(self, connection: _Connection, data: bytearray) -> None:
        is_tls = data[0] == 0x16 and data[1] == 0x03
        connection.foreign = "TLS, which hides what is inside" if is_tls else "not Kafka's protocol"
        self._foreign[connection.foreign] += 1
        for side in connection.sides.values():
            self._clear(side)

    def _complete_frames(self, connection: _Connection, source: Address, side: _Direction) -> Iterator[Frame]:
        buffer = side.buffer
        is_request = source == connection.client
        while len(buffer) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(buffer)
            if not 0 <= size <= MAX_FRAME_BYTES:
                problem = f"a frame cannot have {size} bytes; left out up to the next that looks like one"
                yield Frame(memoryview(b""), is_request, None, problem=problem)
                self._clear(side)
                side.is_in_step = False
                return
            if len(buffer) < _SIZE.size + size:
                return
            data = memoryview(bytes(buffer[_SIZE.size : _SIZE.size + size]))
            del buffer[: _SIZE.size + size]
            self._buffered_bytes -= _SIZE.size + size
            conversation = connection.conversation
            yield conversation.on_request(data) if is_request else conversation.on_response(data)
