"""The accelerator's sender: what it sends, what it reports, and a poller with slow and vanishing clients on it."""

import errno
import os
import random
import select
import socket
import sys
from collections.abc import Generator
from functools import partial
from typing import Any

import pytest
import trio

from kpy.net import sender
from kpy.net.connection import Buffers
from kpy.net.listener import accept_connections, listen
from kpy.net.poller import Poller
from tests.unit.net.test_channel import frame

if not sys.platform.startswith("linux"):
    pytest.skip("there are no eventfds", allow_module_level=True)

MAX_REQUEST_BYTES = 1 << 20
CAPACITY = 512
SEEDS = range(3)
TALKERS = 16


@pytest.fixture
def native(accelerator: Any) -> Generator[Any]:
    made = accelerator.Sender()
    yield made
    made.close()


@pytest.fixture
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def threads() -> set[str]:
    """Of this process. Those of other tests' worker pools may end at any time."""
    return set(os.listdir("/proc/self/task"))


def rings(native: Any) -> bool:
    return bool(select.select([native.alarm_fd], [], [], 0)[0])


def test_everything_leaves_in_the_order_in_which_it_was_handed_over(native: Any) -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    expected = [b"" for _ in pairs]
    for _round in range(50):
        for index, (ours, _) in enumerate(pairs):
            data = random.randbytes(random.randrange(1, 300))
            expected[index] += data
            number = native.hand_over(ours.fileno(), data)
        assert not native.wait(number)
        assert native.take_back() is None
    for (ours, theirs), stream in zip(pairs, expected, strict=True):
        assert theirs.recv(100_000) == stream
        ours.close()
        theirs.close()
    assert not rings(native)


def test_nothing_leaves_before_it_is_published(native: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    native.hand_over(ours.fileno(), b"first")
    assert not select.select([theirs], [], [], 0)[0]
    native.publish()
    assert theirs.recv(5) == b"first"


def test_eight_that_are_handed_over_are_published(native: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    for _ in range(15):
        native.hand_over(ours.fileno(), b"x")
    theirs.settimeout(10)
    received = b""
    while len(received) < 8:
        received += theirs.recv(100)
    assert len(received) == 8
    assert not select.select([theirs], [], [], 0)[0]


def test_a_full_socket_cuts_short_and_rings(native: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    """A socket of Unix stays full until somebody reads; one of TCP has room again when what it sent has arrived."""
    ours, _ = pair
    large = random.randbytes(50_000_000)
    assert native.wait(native.hand_over(ours.fileno(), large))
    assert native.wait(native.hand_over(ours.fileno(), b"more"))
    assert rings(native)
    fd, data, sent, error = native.take_back()
    assert (fd, data, error) == (ours.fileno(), large, 0)
    assert 0 < sent < len(large)
    assert native.take_back() == (ours.fileno(), b"more", 0, 0)
    assert not native.wait(0)


def test_a_peer_that_is_gone_is_an_error_and_no_signal(native: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert native.wait(native.hand_over(ours.fileno(), b"lost"))
    assert native.take_back() == (ours.fileno(), b"lost", 0, errno.EPIPE)


def test_a_full_ring_takes_no_more_until_something_is_taken_back(native: Any) -> None:
    pairs = [socket.socketpair() for _ in range(8)]  # One alone is full before the ring is.
    numbers = [native.hand_over(pairs[index % 8][0].fileno(), b"x") for index in range(CAPACITY + 1)]
    assert numbers == [*range(1, CAPACITY + 1), 0]
    assert not native.wait(CAPACITY)
    assert native.hand_over(pairs[0][0].fileno(), b"x") == 0
    assert native.take_back() is None
    assert native.hand_over(pairs[0][0].fileno(), b"x") == CAPACITY + 1
    for ours, theirs in pairs:
        assert theirs.recv(CAPACITY) == CAPACITY // 8 * b"x"
        ours.close()
        theirs.close()


def test_bytes_are_kept_until_they_are_taken_back(native: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    data = random.randbytes(100)
    before = sys.getrefcount(data)
    number = native.hand_over(ours.fileno(), data)
    assert sys.getrefcount(data) == before + 1
    native.wait(number)
    native.take_back()
    assert sys.getrefcount(data) == before


def test_close_tries_what_is_left_and_ends_the_thread(
    accelerator: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    before = threads()
    native = accelerator.Sender()
    assert not threads() - before
    data = random.randbytes(100)
    references = sys.getrefcount(data)
    native.hand_over(ours.fileno(), data)
    assert len(threads() - before) == 1
    native.close()
    assert not threads() - before
    assert theirs.recv(1000) == data
    assert native.hand_over(ours.fileno(), b"late") == 0
    del native
    assert sys.getrefcount(data) == references


def test_one_that_is_dropped_without_being_closed_ends_its_thread(
    accelerator: Any, pair: tuple[socket.socket, socket.socket]
) -> None:
    before = threads()
    native = accelerator.Sender()
    native.hand_over(pair[0].fileno(), b"last")
    del native
    assert not threads() - before
    assert pair[1].recv(100) == b"last"


def test_what_it_cannot_take_is_refused(native: Any) -> None:
    for wrong in ((1,), (1, bytearray(1)), ("1", b"1")):
        with pytest.raises(TypeError):
            native.hand_over(*wrong)
    with pytest.raises(ValueError, match="handed over"):
        native.wait(1)


def answer_of(request: bytes) -> bytes:
    """As long as the request asks for, and different at each place."""
    size = int.from_bytes(request[8:12])
    return (request * (size // len(request) + 1))[:size]


def dispatch(buf: memoryview, start: int, end: int) -> Buffers:
    return [answer_of(bytes(buf[start:end]))]


def talk(port: int, number: int, seed: int) -> None:
    """A client that sends requests and reads the answers when it likes. Every fourth leaves in the middle."""
    rng = random.Random(1000 * seed + number)
    stays = number % 4 != 3
    for _ in range(1 if stays else 10):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(30)
            sock.connect(("127.0.0.1", port))
            for _ in range(30 if stays else 3):
                # Some say more at once than the system keeps for them, and read nothing meanwhile.
                sizes = [rng.choice((10, 300, 16_000, 16_385, 60_000)) for _ in range(rng.choice((1, 1, 3, 30)))]
                requests = [rng.randbytes(8) + size.to_bytes(4) for size in sizes]
                sock.sendall(b"".join(map(frame, requests)))
                if not stays and rng.random() < 0.5:
                    break
                for request in requests:
                    check_answer(sock, answer_of(request), rng)


def check_answer(sock: socket.socket, expected: bytes, rng: random.Random) -> None:
    received = b""
    while len(received) < len(expected):
        part = sock.recv(min(rng.choice((7, 4096, 65_536)), len(expected) - len(received)))
        assert part, "the connection was closed"
        received += part
    assert received == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_slow_and_vanishing_clients_get_their_own_bytes_in_order(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(sender, "NATIVE", accelerator)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("kpy.net.poller.BUSY_ROUND", 2)

    async def main() -> int:
        [listening] = listen("127.0.0.1", 0, 100)
        port = listening.getsockname()[1]
        poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)
        threads = trio.CapacityLimiter(TALKERS)
        with listening, trio.fail_after(60):
            async with trio.open_nursery() as broker:
                poller.give_way_to(listening)
                broker.start_soon(accept_connections, listening, poller, lambda _: dispatch, lambda _: True)
                broker.start_soon(poller.run)
                async with trio.open_nursery() as clients:
                    for number in range(TALKERS):
                        clients.start_soon(partial(trio.to_thread.run_sync, talk, port, number, seed, limiter=threads))
                found = poller._sender
                assert found is not None
                handed_over = found.hand_over(-1, b"")  # Its number is what tells how many there were.
                broker.cancel_scope.cancel()
        return handed_over

    assert trio.run(main) > 1, "nothing was handed over, so nothing was tested"
