"""One connection that says exactly what a scenario wants, by kpy's codec, and tells how the broker took it."""

import importlib
import socket
import struct
from enum import Enum
from typing import Any

from kpy.wire.apis import APIS

ANSWER_TIMEOUT_S = 60.0
CLIENT_ID = b"differential"
API_VERSIONS = 18


class Silence(Enum):
    """What a broker does instead of answering."""

    CLOSED = "closes the connection"
    NOTHING = f"says nothing for {ANSWER_TIMEOUT_S} s"


class Connection:
    """A socket to one broker; it is opened by the first request, and again after the broker has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), ANSWER_TIMEOUT_S)
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # The broker has closed before; receive() says so.

    def receive(self) -> bytes | Silence:
        """The next response without its size."""
        head = self._read(4)
        if isinstance(head, Silence):
            return head
        (size,) = struct.unpack(">i", head)
        return self._read(size)

    def _read(self, size: int) -> bytes | Silence:
        assert self._socket is not None, "nothing was sent yet"
        data = bytearray()
        while len(data) < size:
            try:
                more = self._socket.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            except TimeoutError:
                self.close()
                return Silence.NOTHING
            if not more:
                self.close()
                return Silence.CLOSED
            data += more
        return bytes(data)


def frame(key: int, version: int, body: bytes, correlation_id: int) -> bytes:
    """A whole request with size and header; flexible versions have an empty section of tags in the header."""
    flexible_since = APIS[key].flexible_since if key in APIS else None
    tags = b"\0" if flexible_since is not None and version >= flexible_since else b""
    head = struct.pack(">hhih", key, version, correlation_id, len(CLIENT_ID)) + CLIENT_ID + tags
    return sized(head + body)


def sized(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def encode(key: int, version: int, request: Any) -> bytes:
    return b"".join(codec_of(key).encode_request(request, version))


def decode(key: int, version: int, response: bytes, correlation_id: int) -> Any:
    """The decoded response. ApiVersions answers a version that it does not know in version 0."""
    (answered,) = struct.unpack_from(">i", response)
    assert answered == correlation_id, f"correlation id {answered} in the answer to {correlation_id}"
    flexible_since = APIS[key].flexible_since
    has_tags = flexible_since is not None and version >= flexible_since and key != API_VERSIONS
    return codec_of(key).decode_response(memoryview(response), version, 5 if has_tags else 4)


def codec_of(key: int) -> Any:
    return importlib.import_module(f"kpy.wire.{APIS[key].module}")
