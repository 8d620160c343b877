"""The other end of a connection in TLS, which decides where a record ends and in which pieces it travels."""

import socket
import ssl
from collections.abc import Sequence

import trio


class TlsClient:
    """One task may send while another one receives."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self._from_server, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_server, self._to_server, server_hostname="localhost")
        self.was_told_the_end = False
        """Whether the server has said that nothing more comes, which an attacker cannot."""

    async def shake_hands(self) -> None:
        """Returns when the server has been sent all it needs. Raises SSLError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.transmit(self._to_server.read())
                await self._receive_some()
            else:
                await self.transmit(self._to_server.read())
                return

    def hello(self) -> bytes:
        """The first message of a handshake."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._to_server.read()
        raise AssertionError("a handshake takes two")

    def encrypted(self, *records: bytes) -> bytes:
        """Each of these in a record of its own, or in several if it does not fit one."""
        for record in records:
            rest = memoryview(record)
            while rest:
                rest = rest[self._tls.write(rest) :]
        return self._to_server.read()

    def last_words(self) -> bytes:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            return self._to_server.read()
        raise AssertionError("the server has said nothing yet")

    async def transmit(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        """Sends these bytes, and lets the server read them up to each of the cuts first."""
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            rest = data[start:end]
            while rest:
                await trio.lowlevel.wait_writable(self.sock)
                rest = rest[self.sock.send(rest) :]
            await trio.lowlevel.checkpoint()

    async def send(self, *records: bytes) -> None:
        await self.transmit(self.encrypted(*records))

    async def receive(self, size: int) -> bytes:
        """`size` bytes, or fewer if the server closes. Raises SSLError."""
        stream = b""
        while len(stream) < size:
            try:
                data = self._tls.read(size - len(stream))
            except ssl.SSLWantReadError:
                if not await self._receive_some():
                    break
                continue
            except ssl.SSLZeroReturnError:  # Instead of nothing, if this end has had its last words.
                data = b""
            if not data:
                self.was_told_the_end = True
                break
            stream += data
        return stream

    async def _receive_some(self) -> bool:
        await trio.lowlevel.wait_readable(self.sock)
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if data:
            self._from_server.write(data)
        return bool(data)
