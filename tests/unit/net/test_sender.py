"""Channels that hand over what they send: the order of bytes, what is cut short, closing. Without a thread or C.

The sender of these tests tries nothing before somebody waits for it, or the test says so: whatever could happen while
the thread is late happens here.
"""

import errno
import gc
import os
import select
import socket
import types
from collections.abc import Generator
from pathlib import Path

import pytest
import trio

from kpy.errors import WireError
from kpy.net import sender
from kpy.net.channel import Channel
from kpy.net.connection import Buffers, Dispatch
from kpy.net.poller import Poller
from kpy.pending import Pending
from kpy.storage.fs import File, FileRegion, OsFs
from tests.unit.net.test_channel import echo, frame

MAX_REQUEST_BYTES = 1 << 20


class LateNative:
    """Does what `_native.Sender` does, in the thread of who waits, and no earlier."""

    instances: "list[LateNative]"

    def __init__(self) -> None:
        LateNative.instances.append(self)
        self.alarm_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.waiting: list[tuple[int, bytes]] = []
        self.failed: list[tuple[int, bytes, int, int]] = []
        self.handed_over = 0
        self.tried = 0
        self.room = 512
        self.is_closed = False

    def hand_over(self, fd: int, data: bytes) -> int:
        if len(self.waiting) == self.room or self.is_closed:
            return 0
        self.waiting.append((fd, data))
        self.handed_over += 1
        return self.handed_over

    def publish(self) -> None:
        pass

    def wait(self, number: int) -> bool:
        while self.tried < number:
            self.try_one()
        return bool(self.failed)

    def try_one(self) -> None:
        fd, data = self.waiting.pop(0)
        self.tried += 1
        sent, error = 0, 0
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                sent = sock.send(data)
        except BlockingIOError:
            pass
        except OSError as failure:
            error = failure.errno or errno.EIO
        if sent < len(data):
            self.failed.append((fd, data, sent, error))
            os.eventfd_write(self.alarm_fd, 1)

    def take_back(self) -> tuple[int, bytes, int, int] | None:
        return self.failed.pop(0) if self.failed else None

    def close(self) -> None:
        self.wait(self.handed_over)
        self.is_closed = True


class BusyRound:
    """A poller in the middle of a busy round, and what serves its connections by hand."""

    def __init__(self) -> None:
        self.poller = Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)
        [self.native] = LateNative.instances
        found = self.poller._sender
        assert found is not None
        self.sender = found
        self.sender.open()
        self.clients: list[socket.socket] = []

    def connect(self, dispatch: Dispatch = echo) -> tuple[Channel, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.clients.append(theirs)
        return self.poller.add(ours, "test", dispatch), theirs

    def serve(self) -> None:
        """What epoll has to tell."""
        self.poller._serve(self.poller._epoll.poll(0), trio.current_time())


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Generator[BusyRound]:
    LateNative.instances = []
    monkeypatch.setattr(sender, "NATIVE", types.SimpleNamespace(Sender=LateNative))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    busy_round = BusyRound()
    yield busy_round
    for channel in list(busy_round.poller._channels.values()):
        channel.close()
    for client in busy_round.clients:
        client.close()
    os.close(busy_round.native.alarm_fd)


def is_silent(client: socket.socket) -> bool:
    return not select.select([client], [], [], 0)[0]


def fill(channel: Channel) -> int:
    """Sends until the socket is full; how many bytes that took."""
    count = 0
    while True:
        try:
            count += channel.sock.send(bytes(65536))
        except BlockingIOError:
            return count


def drain(client: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        received += client.recv(count - len(received))
    return received


def test_what_is_said_later_leaves_after_what_lies_at_the_sender(busy: BusyRound) -> None:
    _, client = busy.connect()
    client.send(frame(b"request1"))
    busy.serve()
    assert is_silent(client)
    busy.sender.publish()
    client.send(frame(b"request2"))
    busy.serve()
    assert client.recv(100) == b"re:request1re:request2"


def test_one_connection_has_one_piece_at_the_sender(busy: BusyRound) -> None:
    _, client = busy.connect()
    for number in range(3):
        client.send(frame(b"request%d" % number))
        busy.serve()
        assert len(busy.native.waiting) == 1
    assert client.recv(100) == b"re:request0re:request1"


def test_an_answer_that_comes_out_of_turn_waits_for_the_sender(busy: BusyRound) -> None:
    parked: list[Pending[Buffers | None]] = []

    def dispatch(buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        if bytes(buf[start:end]) != b"parked!!":
            return echo(buf, start, end)
        parked.append(Pending())
        return parked[-1]

    _, client = busy.connect(dispatch)
    client.send(frame(b"request1") + frame(b"parked!!"))
    busy.serve()
    busy.sender.publish()
    parked[0].complete([b"late"])
    assert client.recv(100) == b"re:request1late"


def test_a_region_of_a_file_leaves_after_what_lies_at_the_sender(busy: BusyRound, tmp_path: Path) -> None:
    content = os.urandom(70_000)
    (tmp_path / "segment").write_bytes(content)
    region = FileRegion(File(OsFs(), str(tmp_path / "segment")), 0, len(content))
    answers: list[Buffers] = [[b"first"], [b"head", region, b"tail"]]
    _, client = busy.connect(lambda buf, start, end: answers.pop(0))
    for _ in range(2):
        client.send(frame(b"request1"))
        busy.serve()
    assert drain(client, 9 + len(content)) == b"firsthead" + content
    # Nothing is behind it, so it may leave when it likes.
    assert [data for _, data in busy.native.waiting] == [b"tail"]


def test_what_a_full_socket_did_not_take_goes_before_what_is_outgoing(busy: BusyRound) -> None:
    channel, client = busy.connect()
    filled = fill(channel)
    for number in range(3):
        client.send(frame(b"request%d" % number))
        busy.serve()
    assert channel.wants_writable
    drain(client, filled)
    busy.sender.publish()
    for _ in range(4):
        busy.serve()
    assert client.recv(100) == b"re:request0re:request1re:request2"


def test_the_alarm_brings_back_what_was_cut_short(busy: BusyRound) -> None:
    channel, client = busy.connect()
    filled = fill(channel)
    client.send(frame(b"request1"))
    busy.serve()
    busy.sender.publish()
    busy.native.try_one()
    busy.serve()
    assert channel.wants_writable
    drain(client, filled)
    busy.serve()
    assert client.recv(100) == b"re:request1"
    assert not channel.wants_writable


def test_a_peer_that_is_gone_ends_its_connection_and_no_other(busy: BusyRound) -> None:
    (gone, gone_client), (_, client) = busy.connect(), busy.connect()
    for each in (gone_client, client):
        each.send(frame(b"request1"))
    busy.serve()
    gone_client.close()
    while busy.native.waiting:
        busy.native.try_one()
    busy.sender.take_back()
    assert gone.closed
    assert len(busy.poller) == 1
    assert client.recv(100) == b"re:request1"


def test_a_socket_is_closed_when_the_sender_has_tried_what_it_was_given(busy: BusyRound) -> None:
    channel, client = busy.connect()
    client.send(frame(b"request1"))
    busy.serve()
    channel.close()
    assert not busy.native.waiting
    assert client.recv(100) == b"re:request1"
    assert client.recv(100) == b""


def test_who_gets_the_number_of_a_closed_connection_gets_nothing_of_its_bytes(busy: BusyRound) -> None:
    gc.collect()  # What other tests have left must not free a lower number meanwhile.
    channel, client = busy.connect()
    filled = fill(channel)
    client.send(frame(b"request1"))
    busy.serve()
    channel.close()
    successor, other_client = busy.connect()
    assert successor.fd == channel.fd
    busy.sender.take_back()
    busy.serve()
    assert is_silent(other_client)
    assert not successor.wants_writable
    assert len(drain(client, filled)) == filled


def test_two_that_are_cut_short_keep_their_order_when_the_first_closes_and_speaks_to_the_second(
    busy: BusyRound,
) -> None:
    """A connection that ends may bring an answer to another, whose bytes have come back and are not told of yet."""
    parked: list[Pending[Buffers | None]] = []

    def park(buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        if bytes(buf[start:end]) != b"parked!!":
            return echo(buf, start, end)
        parked.append(Pending())
        return parked[-1]

    def ends(buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        if bytes(buf[start:end]) != b"parked!!":
            return echo(buf, start, end)
        return Pending(lambda: parked[0].complete([b"late"]))

    (first, first_client), (second, second_client) = busy.connect(ends), busy.connect(park)
    filled = fill(second)
    for client in (first_client, second_client):
        client.send(frame(b"request1") + frame(b"parked!!"))
    busy.serve()
    busy.sender.publish()
    first_client.close()
    while busy.native.waiting:
        busy.native.try_one()
    busy.sender.take_back()
    assert first.closed
    drain(second_client, filled)
    busy.serve()
    assert second_client.recv(100) == b"re:request1late"


def test_a_malformed_request_ends_its_connection_after_what_lies_at_the_sender(busy: BusyRound) -> None:
    def dispatch(buf: memoryview, start: int, end: int) -> Buffers:
        if bytes(buf[start:end]) == b"garbage!":
            raise WireError("garbage")
        return echo(buf, start, end)

    channel, client = busy.connect(dispatch)
    client.send(frame(b"request1"))
    busy.serve()
    client.send(frame(b"request2") + frame(b"garbage!"))
    busy.serve()
    assert channel.closed
    assert client.recv(100) == b"re:request1re:request2"
    assert client.recv(100) == b""


def test_what_finds_no_place_or_is_large_is_sent_at_once(busy: BusyRound) -> None:
    answer: list[bytes] = [bytes(sender.HANDED_OVER_LIMIT_BYTES), bytes(sender.HANDED_OVER_LIMIT_BYTES + 1), b"small"]
    left = list(answer)
    _, client = busy.connect(lambda buf, start, end: [left.pop(0)])
    for expected_waiting in (1, 0, 0):
        client.send(frame(b"request1"))
        busy.serve()
        assert len(busy.native.waiting) == expected_waiting
        busy.native.room = 1 if expected_waiting else 0
    assert drain(client, sum(map(len, answer))) == b"".join(answer)


def test_outside_of_busy_rounds_nothing_is_handed_over(busy: BusyRound) -> None:
    _, client = busy.connect()
    busy.sender.publish()
    client.send(frame(b"request1"))
    busy.serve()
    assert client.recv(100) == b"re:request1"
    assert busy.native.handed_over == 0


def test_with_one_cpu_or_without_the_accelerator_there_is_no_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    LateNative.instances = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(sender, "NATIVE", types.SimpleNamespace(Sender=LateNative))
    assert sender.new_sender(lambda fd, rest, error: None) is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(sender, "NATIVE", None)
    assert sender.new_sender(lambda fd, rest, error: None) is None
    assert not LateNative.instances
