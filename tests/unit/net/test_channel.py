"""Channel and poller on real sockets: sending under back pressure, muting, and clients that go away."""

import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

import kpy.net.poller
from kpy.errors import WireError
from kpy.net.channel import LONG_ANSWER_BYTES
from kpy.net.connection import Buffers, Dispatch
from kpy.net.listener import SocketBuffers, accept_connections, listen
from kpy.net.poller import Poller
from kpy.pending import Pending
from kpy.storage.fs import File, FileRegion, OsFs

MAX_REQUEST_BYTES = 10_000_000


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def run_with(dispatch: Dispatch, client: Callable[[socket.socket, Poller], Awaitable[None]]) -> None:
    """Serves one end of a socket pair with `dispatch` while `client` uses the other."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)
        poller.add(ours, "test", dispatch)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                with theirs:
                    await client(theirs, poller)
                nursery.cancel_scope.cancel()

    trio.run(main)


async def receive(sock: socket.socket, size: int) -> bytes:
    """`size` bytes, or fewer if the other end closes."""
    stream = b""
    while len(stream) < size:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            break
        if not data:
            break
        stream += data
    return stream


async def send(sock: socket.socket, data: bytes) -> None:
    while data:
        await trio.lowlevel.wait_writable(sock)
        data = data[sock.send(data) :]


def echo(buf: memoryview, start: int, end: int) -> Buffers:
    return [b"re:", bytes(buf[start:end])]


class EchoThatParks:
    """Answers as `echo` does, but for a request of these eight bytes, which waits: parked!!."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.parked: list[Pending[Buffers | None]] = []

    def __call__(self, buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        self.seen.append(bytes(buf[start:end]))
        if self.seen[-1] == b"parked!!":
            self.parked.append(Pending())
            return self.parked[-1]
        return echo(buf, start, end)


def test_requests_are_answered() -> None:
    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"request1") + frame(b"request2"))
        assert await receive(sock, 22) == b"re:request1re:request2"

    run_with(echo, client)


def test_answers_that_do_not_fit_the_socket_are_sent_when_the_client_reads() -> None:
    large = os.urandom(3_000_000)

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"request1") + frame(b"request2"))
        assert await receive(sock, 2 * len(large)) == large + large

    run_with(lambda buf, start, end: [large], client)


@pytest.mark.parametrize("size", [10, 64 * 1024, 64 * 1024 + 1, 5_000_000])
def test_file_regions_are_sent_between_other_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(size + 200)
    path = tmp_path / "segment"
    path.write_bytes(content)
    file = File(OsFs(), str(path))

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"request1"))
        expected = b"head" + content[100 : 100 + size] + b"middle" + content[:size] + b"tail"
        assert await receive(sock, len(expected)) == expected

    run_with(
        lambda buf, start, end: [b"head", FileRegion(file, 100, size), b"middle", FileRegion(file, 0, size), b"tail"],
        client,
    )


def test_a_malformed_request_closes_its_connection_after_the_answers_before_it() -> None:
    def dispatch(buf: memoryview, start: int, end: int) -> Buffers:
        if bytes(buf[start:end]) == b"garbage!":
            raise WireError("garbage")
        return echo(buf, start, end)

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"request1") + frame(b"garbage!") + frame(b"request3"))
        assert await receive(sock, 1000) == b"re:request1"
        assert len(poller) == 0

    run_with(dispatch, client)


def test_a_fault_in_a_handler_closes_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    def dispatch(buf: memoryview, start: int, end: int) -> Buffers:
        raise ZeroDivisionError

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"request1"))
        assert await receive(sock, 1000) == b""
        assert len(poller) == 0

    run_with(dispatch, client)
    assert "fault" in caplog.text


def test_a_waiting_connection_is_muted_until_its_answer_comes() -> None:
    dispatch = EchoThatParks()

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"parked!!"))
        while not dispatch.parked:
            await trio.lowlevel.checkpoint()
        await send(sock, frame(b"request2"))
        await trio.testing.wait_all_tasks_blocked()
        assert dispatch.seen == [b"parked!!"]
        dispatch.parked[0].complete([b"late"])
        assert await receive(sock, 15) == b"latere:request2"

    run_with(dispatch, client)


def test_answers_that_one_request_brings_to_another_connection_leave_in_one_send() -> None:
    waiting: list[Pending[Buffers | None]] = []

    def dispatch(buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        if bytes(buf[start : start + 2]) == b"\0\0":
            waiting.append(Pending(may_be_overtaken=True))
            return waiting[-1]
        for number, pending in enumerate(waiting):
            pending.complete([b"%d" % number])
        return [b"done"]

    async def main() -> None:
        poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)
        producer, replica = packet_pair(poller, dispatch), packet_pair(poller, dispatch)
        with trio.fail_after(10), producer, replica:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                await send(producer, 3 * frame(b"\0\0 produce"))
                while len(waiting) < 3:
                    await trio.lowlevel.checkpoint()
                await send(replica, frame(b"fetch!!!"))
                assert await receive(replica, 4) == b"done"
                await trio.lowlevel.wait_readable(producer)
                assert producer.recv(100) == b"012"
                nursery.cancel_scope.cancel()

    trio.run(main)


def packet_pair(poller: Poller, dispatch: Dispatch) -> socket.socket:
    """Another end of a connection, on which each send of this end comes by itself."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    poller.add(ours, "test", dispatch)
    return theirs


class CountingEpoll:
    """An epoll descriptor that knows how often it was asked, and found nothing."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.found = self.found_nothing = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, max_events: int) -> list[tuple[int, int]]:
        events = self._epoll.poll(timeout, max_events)
        self.found += bool(events)
        self.found_nothing += not events
        return events


@pytest.mark.parametrize("size", [1000, LONG_ANSWER_BYTES])
def test_a_lone_client_is_waited_for_without_sleep_unless_it_has_much_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(size))
    region = FileRegion(File(OsFs(), str(path)), 0, size)
    monkeypatch.setattr(kpy.net.poller, "SLEEPLESS_SECONDS", 0.02)

    async def main() -> CountingEpoll:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)
        poller.add(ours, "test", lambda buf, start, end: [region])
        counting = CountingEpoll(poller._epoll)
        monkeypatch.setattr(poller, "_epoll", counting)
        with trio.fail_after(10), theirs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                for _ in range(3):
                    await send(theirs, frame(b"request1"))
                    assert len(await receive(theirs, size)) == size
                nursery.cancel_scope.cancel()
        return counting

    counting = trio.run(main)
    if size == LONG_ANSWER_BYTES:
        assert counting.found_nothing <= 5 * counting.found
    else:
        assert counting.found_nothing > 10 * counting.found


def test_a_client_that_closes_while_it_waits_abandons_the_answer() -> None:
    abandoned = False
    parked: list[Pending[Buffers | None]] = []

    def tell() -> None:
        nonlocal abandoned
        abandoned = True

    def dispatch(buf: memoryview, start: int, end: int) -> Pending[Buffers | None]:
        parked.append(Pending(tell))
        return parked[-1]

    async def client(sock: socket.socket, poller: Poller) -> None:
        await send(sock, frame(b"parked!!"))
        while not parked:
            await trio.lowlevel.checkpoint()
        sock.close()
        while len(poller):
            await trio.lowlevel.checkpoint()
        assert abandoned

    run_with(dispatch, client)


def test_idle_connections_are_closed_and_waiting_ones_are_not() -> None:
    parked: list[Pending[Buffers | None]] = []

    def dispatch(buf: memoryview, start: int, end: int) -> Pending[Buffers | None]:
        parked.append(Pending())
        return parked[-1]

    async def client(sock: socket.socket, poller: Poller) -> None:
        idle, other_end = socket.socketpair()
        idle.setblocking(False)
        with other_end:
            poller.add(idle, "idle", dispatch)
            await send(sock, frame(b"parked!!"))
            while not parked:
                await trio.lowlevel.checkpoint()
            poller.close_idle(-1)
            assert len(poller) == 1
            assert other_end.recv(1) == b""

    run_with(dispatch, client)


def test_connections_above_the_limit_are_closed_at_once() -> None:
    async def main() -> None:
        [listening] = listen("127.0.0.1", 0, 10)
        poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)

        def may_connect(host: str) -> bool:
            return poller.connections_of(host) < 1

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                nursery.start_soon(accept_connections, listening, poller, lambda host: echo, may_connect)
                port = listening.getsockname()[1]
                first = await trio.open_tcp_stream("127.0.0.1", port)
                await first.send_all(frame(b"request1"))
                assert await first.receive_some(100) == b"re:request1"
                second = await trio.open_tcp_stream("127.0.0.1", port)
                assert await second.receive_some(100) == b""
                await first.aclose()
                await second.aclose()
                nursery.cancel_scope.cancel()
        listening.close()

    trio.run(main)


def test_whoever_connects_to_a_busy_poller_is_let_in_within_few_rounds() -> None:
    rounds: list[int] = []
    let_in_at: list[int] = []

    async def main() -> None:
        [listening] = listen("127.0.0.1", 0, 10)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        late = socket.socket()
        late.setblocking(False)

        def end_round() -> None:
            rounds.append(len(rounds))
            if len(rounds) == 2:
                late.connect_ex(listening.getsockname())
            # There is never a round without anything to do, so nobody else runs but at the poller's own checkpoints.
            theirs.send(frame(b"and more"))

        def may_connect(host: str) -> bool:
            let_in_at.append(len(rounds))
            nursery.cancel_scope.cancel()
            return False

        poller = Poller(MAX_REQUEST_BYTES, lambda: None, end_round)
        poller.add(ours, "busy", lambda buf, start, end: None)
        poller.give_way_to(listening)
        with listening, ours, theirs, late, trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept_connections, listening, poller, lambda host: echo, may_connect)
                nursery.start_soon(poller.run)
                theirs.send(frame(b"at first"))

    trio.run(main)
    # It connects in the second round, and the poller hears of it in the third.
    assert let_in_at == [3]


def test_localhost_listens_on_one_port_of_every_address_it_stands_for() -> None:
    sockets = listen("localhost", 0, 10)
    addresses = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    try:
        assert {sock.getsockname()[0] for sock in sockets} <= addresses
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("option", [socket.SO_SNDBUF, socket.SO_RCVBUF])
@pytest.mark.parametrize("size_bytes", [-1, 50_000])
def test_accepted_connections_have_the_buffers_that_the_listener_was_given(option: int, size_bytes: int) -> None:
    with socket.socket() as like_it:
        like_it.setsockopt(socket.SOL_SOCKET, option, 50_000)
        expected = like_it.getsockopt(socket.SOL_SOCKET, option)  # Linux doubles it, for what it needs itself.
    buffers = SocketBuffers(send=size_bytes) if option == socket.SO_SNDBUF else SocketBuffers(receive=size_bytes)
    [listening] = listen("127.0.0.1", 0, 10, buffers)
    with listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        with listening.accept()[0] as accepted:
            is_as_given = accepted.getsockopt(socket.SOL_SOCKET, option) == expected
    assert is_as_given == (size_bytes >= 0)


def test_a_port_in_use_is_refused() -> None:
    [first] = listen("127.0.0.1", 0, 10)
    with first, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1], 10)
