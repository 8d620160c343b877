"""A connection whose bytes travel in TLS: the channel of net/channel.py with OpenSSL between socket and connection.

Theory of operation. OpenSSL is given no socket: what has been received is put into one memory BIO, and what is to be
sent is taken out of another. So 64 KiB are received, and as much is encrypted and sent, by one system call, where an
SSLSocket makes two and one for each record of 16 KiB.

Epoll does not know of bytes that OpenSSL has. Therefore none stay there: each whole record is decrypted as soon as it
has come, also while the connection is muted or its socket full. The requests in it then lie in the connection, where
they wait as they do without TLS. What is left in OpenSSL is the beginning of a record, which no request can wait for.

What has been encrypted cannot be taken back or change places, so the rest of what the socket did not take is kept, and
goes first; meanwhile ENCRYPTED stands for it in `outgoing`. It stands there too for what OpenSSL itself has to say: its
side of the handshake, session tickets, and answers to new keys.

The handshake goes on as the client's bytes come. It must be done within connections.max.idle.ms of the connection's
beginning, however busily it is spread out. It is the one dear step, up to a millisecond for an RSA key: a listener does
one in each round of the poller, so that a thousand clients who come at once let the others in between them.
"""

import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

from kpy.net.channel import LONG_ANSWER_BYTES, READS_IN_A_ROW, Channel
from kpy.net.connection import Buffers, Dispatch
from kpy.net.sender import Sender
from kpy.storage.fs import Buffer, FileRegion

log = logging.getLogger("kpy.net")

PIECE_BYTES = 64 * 1024
"""What is received, or encrypted and sent, at once; also what a BIO keeps at most, or little more. With 128 KiB a
gigabyte costs as much, with 16 KiB a third more."""

PIECES_A_TURN = 16
"""A client that reads as fast as this encrypts lets the others have their turn then."""

ENCRYPTED = b""

_AROUND_A_REASON = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")


class Tls:
    """What all connections of one listener share. `context` is asked at each one for that which is in force then."""

    __slots__ = ("context", "last_handshake", "received")

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self.context = context
        self.last_handshake = 0.0
        """The round in which a step of a handshake was done last."""
        self.received = memoryview(bytearray(PIECE_BYTES))


class TlsChannel(Channel):
    """One accepted socket on a listener of security protocol SSL."""

    __slots__ = ("_from_client", "_is_in_handshake", "_listener", "_tls", "_to_client", "_unsent")

    def __init__(
        self,
        sock: socket.socket,
        peer_host: str,
        dispatch: Dispatch,
        max_request_bytes: int,
        shared: memoryview,
        on_change: Callable[[Channel], None],
        on_answer: Callable[[Channel], None],
        sender: Sender | None,
        listener: Tls,
    ) -> None:
        super().__init__(sock, peer_host, dispatch, max_request_bytes, shared, on_change, on_answer, sender)
        self._listener = listener
        self._from_client = ssl.MemoryBIO()
        self._to_client = ssl.MemoryBIO()
        # Of no type of its own, since what `read` returns depends on its arguments.
        self._tls: Any = listener.context().wrap_bio(self._from_client, self._to_client, server_side=True)
        self._is_in_handshake = True
        self._unsent: Buffer = ENCRYPTED

    def on_readable(self, now: float) -> None:
        """Reads, decrypts and answers until the socket is empty, the connection waits, or others deserve a turn."""
        if not self._is_in_handshake:
            self.last_active = now
        elif self._listener.last_handshake == now:
            return  # Epoll will say again that there is something to read.
        else:
            self._listener.last_handshake = now
        received = self._listener.received
        for _ in range(READS_IN_A_ROW):
            try:
                count = self.sock.recv_into(received)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if count == 0:
                self.close()
                return
            try:
                self._from_client.write(received[:count])
                if not self._is_in_handshake or self._shake_hands(now):
                    self._take_up_records()
            except ssl.SSLError as error:
                self._has_failed(error)
            if self.closed or self.wants_writable or self.connection.waiting_for is not None or count < len(received):
                return

    def region_to_send(self) -> None:
        """None: all is encrypted first."""
        return

    def close(self) -> None:
        """Closes the socket; the client is told that this is the end, unless more should have come before."""
        if not self.closed and not self.wants_writable and not (self._ticket and self._is_held_up()):
            with contextlib.suppress(OSError):  # An SSLError too: it waits for the client's word, or TLS has failed.
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self.sock.send(self._to_client.read())
        super().close()

    def was_cut_short(self, rest: memoryview, error: int) -> None:
        self._unsent = rest
        super().was_cut_short(memoryview(ENCRYPTED), error)

    def _shake_hands(self, now: float) -> bool:
        """Goes on with the handshake. Whether it is done."""
        try:
            self._tls.do_handshake()
            self._is_in_handshake = False
            self.last_active = now
        except ssl.SSLWantReadError:
            pass
        self._send_what_openssl_says()
        return not self._is_in_handshake

    def _take_up_records(self) -> None:
        """Decrypts all that has come and has it answered."""
        connection = self.connection
        while not self.closed:
            count, has_ended = self._decrypt_into(connection.buffer())
            if count:
                self._guarded(connection.received, count)
            self._send_what_openssl_says()
            if connection.outgoing and not self.wants_writable:
                self.send()
            if has_ended:
                self.close()
            if not count:
                return

    def _decrypt_into(self, buffer: memoryview) -> tuple[int, bool]:
        """How many bytes of whole records it has put there, and whether the client has said that it is the last."""
        count = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while count < len(buffer) and (self._from_client.pending or self._tls.pending()):
                size: int = self._tls.read(len(buffer) - count, buffer[count:])
                if size == 0:
                    return count, True
                count += size
        return count, False

    def _has_failed(self, error: ssl.SSLError) -> None:
        """Like Apache Kafka, this is no warning: anybody can connect and say anything."""
        reason = _AROUND_A_REASON.sub("", str(error))
        what = "the SSL handshake failed" if self._is_in_handshake else "SSL failed"
        log.info("closing the connection of %s: %s: %s", self.peer_host, what, reason)
        self.close()

    def _send_what_openssl_says(self) -> None:
        if self._to_client.pending and not self.closed:
            self.connection.outgoing.append(ENCRYPTED)
            if not self.wants_writable:
                self.send()

    def _send_some(self, items: Buffers) -> Buffers:
        """Encrypts and sends until done, the socket is full, or others deserve a turn. Returns what is left."""
        encrypted = self._unsent
        self._unsent = ENCRYPTED
        for _ in range(PIECES_A_TURN):
            if not encrypted:
                items = self._encrypt_first(items)
                encrypted = self._to_client.read()
            # Only what is shorter than a piece, and so the last, is handed over to the sender.
            left = self._send_bytes(encrypted) if encrypted else []
            if left:
                self._unsent = left[0]
                return [ENCRYPTED, *items]
            if not items:
                return []
            encrypted = ENCRYPTED
        return items

    def _encrypt_first(self, items: Buffers) -> Buffers:
        """Encrypts a piece of these, and returns the rest."""
        piece, items = self._first_piece(items)
        encrypt = self._tls.write
        position = 0
        with memoryview(piece) as plain:
            while position < len(plain):
                position += encrypt(plain[position:])  # One record.
        return items

    def _first_piece(self, items: Buffers) -> tuple[Buffer, Buffers]:
        if len(items) == 1 and type(items[0]) is bytes and len(items[0]) <= PIECE_BYTES:
            return items[0], []
        parts: list[Buffer] = []
        room = PIECE_BYTES
        for index, item in enumerate(items):
            size = min(room, len(item))
            room -= size
            rest: Any
            if type(item) is FileRegion:
                parts.append(self._read(item, size))
                rest = item.after(size)
            else:
                view = memoryview(item)
                parts.append(view[:size])
                rest = view[size:]
            if len(rest):
                return b"".join(parts), [rest, *items[index + 1 :]]
        return b"".join(parts), []

    def _read(self, region: FileRegion, size: int) -> bytes:
        if region.size >= LONG_ANSWER_BYTES:
            self.sent_long_answer = True
        return FileRegion(region.file, region.position, size).read_whole()
