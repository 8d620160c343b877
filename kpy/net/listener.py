"""Accepts connections on one listening socket and hands them to the poller."""

import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import trio

from kpy.net.connection import Dispatch
from kpy.net.poller import Poller

if TYPE_CHECKING:
    from kpy.net.tls_channel import Tls

log = logging.getLogger("kpy.net")

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""accept() fails with these until something else is closed; the waiting clients stay in the backlog."""

RETRY_SECONDS = 0.1


NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""A name may stand for an IPv6 address on a machine without IPv6."""


class SocketBuffers(NamedTuple):
    """Bytes that the system may keep for a connection in each direction; negative: as many as it likes."""

    send: int = -1
    receive: int = -1


def listen(host: str, port: int, backlog: int, buffers: SocketBuffers | None = None) -> list[socket.socket]:
    """Listening, non-blocking sockets on every address that `host` stands for ("": all of this machine), on one port.

    "localhost" is both 127.0.0.1 and ::1, and clients try either. Port 0 lets the system choose. Raises OSError.
    """
    buffers = buffers or SocketBuffers()
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_listen(family, (address[0], chosen, *address[2:]), backlog, buffers))
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS:
                    raise
                unavailable = error
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    if not sockets and unavailable is not None:
        raise unavailable
    return sockets


def _listen(
    family: socket.AddressFamily, address: tuple[object, ...], backlog: int, buffers: SocketBuffers
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Each accepted socket inherits them; how large a window it may ever announce is settled when it is accepted.
        for option, size_bytes in ((socket.SO_SNDBUF, buffers.send), (socket.SO_RCVBUF, buffers.receive)):
            if size_bytes >= 0:
                sock.setsockopt(socket.SOL_SOCKET, option, size_bytes)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


async def accept_connections(
    listening: socket.socket,
    poller: Poller,
    new_dispatch: Callable[[str], Dispatch],
    may_connect: Callable[[str], bool],
    tls: "Tls | None" = None,
) -> None:
    """Runs until cancelled. `new_dispatch(host)` makes what answers one connection; `may_connect(host)` applies the
    limits. With `tls` connections speak it.
    """
    while True:
        try:
            sock, address = listening.accept()
        except BlockingIOError:
            await trio.lowlevel.wait_readable(listening)
            continue
        except ConnectionError:
            continue
        except OSError as error:
            if error.errno not in OUT_OF_RESOURCES:
                raise
            log.error("cannot accept a connection: %s; trying again", error.strerror)
            await trio.sleep(RETRY_SECONDS)
            continue
        host = sys.intern(address[0])  # One text for all connections from there.
        if not may_connect(host):
            log.warning("refused a connection of %s: max.connections or max.connections.per.ip is reached", host)
            sock.close()
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.add(sock, host, new_dispatch(host), tls)
