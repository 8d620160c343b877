"""A reader in bulk that is alone: the accelerator sends to it and waits for room in its socket, until something else is
to be done."""

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import trio

import kpy.net.trio_loop
from kpy.net.connection import Buffers
from kpy.net.poller import Poller
from kpy.storage.fs import File, FileRegion, OsFs
from tests.unit.net.test_channel import frame

if not sys.platform.startswith("linux"):
    pytest.skip("there are no epolls", allow_module_level=True)

MAX_REQUEST_BYTES = 1 << 20
PATIENCE_S = 20
CONTENT = os.urandom(4_000_000)
LONG_S = 1000.0

Events = list[tuple[int, int]]


@pytest.fixture
def segment(tmp_path: Path) -> File:
    path = tmp_path / "segment"
    path.write_bytes(CONTENT)
    return File(OsFs(), str(path))


class Socket:
    """A full socket in an epoll, beside one of others, and what the accelerator does with it."""

    def __init__(self, native: Any, file: File) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.own, self.others, self.both = select.epoll(), select.epoll(), select.epoll()
        self.both.register(self.own.fileno(), select.EPOLLIN)
        self.both.register(self.others.fileno(), select.EPOLLIN)
        self.own.register(self.ours, select.EPOLLRDHUP | select.EPOLLOUT)
        self.writable = [(self.ours.fileno(), select.EPOLLOUT)]
        self.sent = 0
        self._native = native
        self._file = file

    def close(self) -> None:
        for each in (self.ours, self.theirs, self.both, self.others, self.own):
            each.close()

    def send(self, size: int, seconds: float = LONG_S) -> Events:
        """Goes on with the file up to `size` bytes of it."""
        both, own, sock, file = (each.fileno() for each in (self.both, self.own, self.ours, self._file))
        sent, events = self._native.send_while_alone(both, own, sock, file, self.sent, size - self.sent, seconds)
        self.sent += sent
        return events

    def fill(self) -> None:
        """Until there is no room."""
        assert self.send(len(CONTENT), 0.0) == []
        assert 0 < self.sent < len(CONTENT)


@pytest.fixture
def full(accelerator: Any, segment: File) -> Generator[Socket]:
    made = Socket(accelerator, segment)
    made.fill()
    yield made
    made.close()


@pytest.fixture
def ready() -> Generator[int]:
    """A descriptor with something to read."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    yield reader
    os.close(reader)
    os.close(writer)


def receive(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer if the other end closes."""
    parts = []
    while size and (data := sock.recv(min(size, 1 << 16))):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def reading(sock: socket.socket, size: int) -> tuple[threading.Thread, list[bytes]]:
    """A thread that receives."""
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(receive(sock, size)))
    thread.start()
    return thread, received


def test_all_is_sent_as_it_is_read(full: Socket) -> None:
    thread, received = reading(full.theirs, len(CONTENT))
    events = full.send(len(CONTENT))
    thread.join(PATIENCE_S)
    assert events == full.writable
    assert full.sent == len(CONTENT)
    assert received == [CONTENT]


def test_time_is_up_for_who_does_not_read(full: Socket) -> None:
    sent = full.sent
    started = time.monotonic()
    assert full.send(len(CONTENT), 0.01) == []
    assert time.monotonic() - started >= 0.01
    assert full.sent == sent


def test_another_descriptor_that_is_ready_ends_it(full: Socket, ready: int) -> None:
    full.own.register(ready, select.EPOLLIN)
    assert full.send(len(CONTENT)) == [(ready, select.EPOLLIN)]
    receive(full.theirs, full.sent)
    assert sorted(full.send(len(CONTENT))) == sorted([(ready, select.EPOLLIN), *full.writable])


def test_what_is_told_once_is_told_here(full: Socket, ready: int) -> None:
    """The poller would not hear of it any more."""
    full.own.register(ready, select.EPOLLIN | select.EPOLLET)
    assert full.send(len(CONTENT)) == [(ready, select.EPOLLIN)]
    assert full.own.poll(0) == []


def test_the_other_epoll_ends_it_without_events(full: Socket, ready: int) -> None:
    full.others.register(ready, select.EPOLLIN)
    receive(full.theirs, full.sent)
    sent = full.sent
    assert full.send(len(CONTENT)) == []
    assert full.sent == sent


def test_a_peer_that_is_gone_is_left_to_the_event_loop(full: Socket) -> None:
    full.theirs.close()
    [(fd, mask)] = full.send(len(CONTENT))
    assert fd == full.ours.fileno()
    assert mask & select.EPOLLHUP


def test_a_file_that_is_too_short_is_left_to_the_event_loop(full: Socket) -> None:
    thread, received = reading(full.theirs, len(CONTENT))
    assert full.send(len(CONTENT) + 1) == full.writable
    thread.join(PATIENCE_S)
    assert full.sent == len(CONTENT)
    assert received == [CONTENT]


def test_what_it_cannot_take_is_refused(accelerator: Any) -> None:
    with pytest.raises(TypeError):
        accelerator.send_while_alone(1, 2, 3)


@pytest.fixture(params=["in C", "in Python"])
def either_way(request: pytest.FixtureRequest, accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the accelerator and without."""
    how = accelerator.send_while_alone if request.param == "in C" else None
    monkeypatch.setattr(kpy.net.trio_loop, "_send_while_alone", how)


class Rounds:
    """How many rounds of ready connections there were."""

    def __init__(self) -> None:
        self.count = 0

    def begin(self) -> None:
        self.count += 1


def served(answers: Callable[[bytes], Buffers], client: Callable[[socket.socket, socket.socket], None]) -> int:
    """A poller with two connections, whose other ends `client` has in a thread. How many rounds that took."""

    async def main() -> int:
        rounds = Rounds()
        poller = Poller(MAX_REQUEST_BYTES, rounds.begin, lambda: None)
        pairs = [socket.socketpair() for _ in range(2)]
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.settimeout(PATIENCE_S)
            poller.add(ours, "test", lambda buf, start, end: answers(bytes(buf[start:end])))
        with trio.fail_after(PATIENCE_S), pairs[0][1], pairs[1][1]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                await trio.to_thread.run_sync(client, pairs[0][1], pairs[1][1])
                nursery.cancel_scope.cancel()
        return rounds.count

    return trio.run(main)


def region_or_echo(region: FileRegion, around: list[bytes]) -> Callable[[bytes], Buffers]:
    """What is asked with an r is answered with the region, between these."""
    return lambda request: [*around, region, *around] if request[:1] == b"r" else [request]


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("around", [[], [b"around"]], ids=["alone", "between other bytes"])
def test_every_byte_comes_in_order_and_the_requests_behind_are_answered(segment: File, around: list[bytes]) -> None:
    expected = b"".join([*around, CONTENT, *around])

    def client(sock: socket.socket, other: socket.socket) -> None:
        sock.sendall(frame(b"region 1") + frame(b"region 2") + frame(b"an echo!"))
        assert receive(sock, 2 * len(expected) + 8) == expected + expected + b"an echo!"

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), around), client)


def test_room_in_the_socket_of_a_lone_reader_makes_no_round(
    accelerator: Any, segment: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kpy.net.trio_loop, "_send_while_alone", accelerator.send_while_alone)

    def client(sock: socket.socket, other: socket.socket) -> None:
        sock.sendall(frame(b"region 1"))
        assert receive(sock, len(CONTENT)) == CONTENT

    assert served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), []), client) <= 3


@pytest.mark.usefixtures("either_way")
def test_others_are_served_while_somebody_is_slow(segment: File) -> None:
    def client(slow: socket.socket, other: socket.socket) -> None:
        slow.sendall(frame(b"region 1"))
        start = receive(slow, 100_000)
        for _ in range(3):
            other.sendall(frame(b"an echo!"))
            assert receive(other, 8) == b"an echo!"
        assert start + receive(slow, len(CONTENT) - len(start)) == CONTENT

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), []), client)


@pytest.mark.usefixtures("either_way")
def test_two_who_read_at_once_get_their_own(segment: File) -> None:
    def client(sock: socket.socket, other: socket.socket) -> None:
        for each in (sock, other):
            each.sendall(frame(b"region 1"))
        thread, received = reading(other, len(CONTENT))
        assert receive(sock, len(CONTENT)) == CONTENT
        thread.join(PATIENCE_S)
        assert received == [CONTENT]

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), []), client)


@pytest.mark.usefixtures("either_way")
def test_a_reader_that_goes_away_ends_nobody_else(segment: File) -> None:
    def client(sock: socket.socket, other: socket.socket) -> None:
        sock.sendall(frame(b"region 1"))
        receive(sock, 100_000)
        sock.close()
        other.sendall(frame(b"an echo!"))
        assert receive(other, 8) == b"an echo!"

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), []), client)


@pytest.mark.usefixtures("either_way")
def test_a_file_that_is_shorter_than_its_index_says_ends_the_connection(segment: File) -> None:
    def client(sock: socket.socket, other: socket.socket) -> None:
        sock.sendall(frame(b"region 1"))
        assert receive(sock, len(CONTENT) + 1) == CONTENT

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT) + 1), []), client)


@pytest.mark.usefixtures("either_way")
def test_deadlines_are_met_while_a_reader_is_slow(segment: File) -> None:
    is_over = threading.Event()

    async def wait_for_a_deadline() -> None:
        with trio.move_on_after(0.05):
            await trio.sleep_forever()
        is_over.set()

    def client(sock: socket.socket, other: socket.socket) -> None:
        sock.sendall(frame(b"region 1"))
        start = receive(sock, 1)
        trio.from_thread.run_sync(trio.lowlevel.spawn_system_task, wait_for_a_deadline)
        # Until here the poller waited through trio, because others were to run.
        other.sendall(frame(b"an echo!"))
        assert receive(other, 8) == b"an echo!"
        assert is_over.wait(PATIENCE_S)
        assert start + receive(sock, len(CONTENT) - 1) == CONTENT

    served(region_or_echo(FileRegion(segment, 0, len(CONTENT)), []), client)
