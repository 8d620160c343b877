"""Connection: frames in, answers out in order, and memory that follows the bytes received."""

import struct

import pytest

from kpy.errors import WireError
from kpy.net.connection import (
    FIRST_OWN_BUFFER_BYTES,
    MAX_OVERTAKING,
    OUTGOING_LIMIT_BYTES,
    Buffers,
    Connection,
)
from kpy.pending import Pending

MAX_REQUEST_BYTES = 1_000_000
SHARED_BYTES = 4096


class Client:
    """A connection whose requests are recorded and answered by `answer`; an echo unless a test says otherwise."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.resumed = 0
        self.pending: list[Pending[Buffers | None]] = []
        self.park_next = 0
        self.connection = Connection(self._dispatch, MAX_REQUEST_BYTES, memoryview(bytearray(SHARED_BYTES)), self)

    def answer_has_come(self) -> None:
        self.resumed += 1

    def _dispatch(self, buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None] | None:
        request = bytes(buf[start:end])
        self.requests.append(request)
        if request.startswith(b"silent!!"):
            return None
        if self.park_next:
            self.park_next -= 1
            self.pending.append(Pending())
            return self.pending[-1]
        return [b"re:" + request]

    def receive(self, data: bytes, chunk: int | None = None) -> None:
        """Feeds `data` as a driver would, at most `chunk` bytes at a time."""
        while data:
            buffer = self.connection.buffer()
            count = min(len(buffer), len(data), chunk or len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            self.connection.received(count)

    def sent(self) -> bytes:
        """What a driver would send now; the socket takes all of it."""
        out = b""
        while self.connection.outgoing:
            out += b"".join(self.connection.outgoing)
            self.connection.outgoing = []
            self.connection.resume()
        return out


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def test_every_complete_frame_in_one_read_is_answered_in_order() -> None:
    client = Client()
    client.receive(frame(b"request1") + frame(b"request2") + frame(b"request3"))
    assert client.sent() == b"re:request1re:request2re:request3"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 11, 64])
def test_frames_arrive_in_any_pieces(chunk: int) -> None:
    client = Client()
    bodies = [b"request%d" % index + b"." * index * 3 for index in range(20)]
    client.receive(b"".join(map(frame, bodies)), chunk)
    assert client.requests == bodies
    assert client.sent() == b"".join(b"re:" + body for body in bodies)


def test_a_frame_larger_than_the_shared_buffer_is_put_together() -> None:
    client = Client()
    large = bytes(range(256)) * 3000
    client.receive(frame(large) + frame(b"after it"))
    assert client.requests == [large, b"after it"]


def test_a_request_without_answer_leaves_no_gap() -> None:
    client = Client()
    client.receive(frame(b"request1") + frame(b"silent!!") + frame(b"request3"))
    assert client.sent() == b"re:request1re:request3"


def test_requests_behind_a_pending_answer_wait_for_it() -> None:
    client = Client()
    client.park_next = 1
    client.receive(frame(b"parked!!") + frame(b"request2"))
    assert client.requests == [b"parked!!"]
    assert client.sent() == b""
    client.pending[0].complete([b"late"])
    assert client.resumed == 1
    assert client.sent() == b"latere:request2"


def test_a_partial_frame_behind_a_pending_answer_is_kept() -> None:
    client = Client()
    client.park_next = 1
    whole = frame(b"request2")
    client.receive(frame(b"parked!!") + whole[:7])
    client.pending[0].complete([b"late"])
    assert client.sent() == b"late"
    client.receive(whole[7:])
    assert client.sent() == b"re:request2"


def test_an_answer_that_never_comes_breaks_the_connection() -> None:
    client = Client()
    client.park_next = 1
    client.receive(frame(b"parked!!"))
    client.pending[0].complete(None)
    assert client.connection.broken
    assert client.resumed == 1


def test_a_client_that_goes_away_abandons_the_wait() -> None:
    told: list[bool] = []
    client = Client()
    client.park_next = 1
    client.receive(frame(b"parked!!"))
    client.pending[0].on_abandon = lambda: told.append(True)
    client.connection.abandon()
    client.pending[0].complete([b"too late"])
    assert told == [True]
    assert client.sent() == b""


@pytest.mark.parametrize("size", [-(2**31), -1, 0, 7, MAX_REQUEST_BYTES + 1, 2**31 - 1])
def test_a_frame_of_an_impossible_size_is_refused(size: int) -> None:
    client = Client()
    with pytest.raises(WireError, match=str(size)):
        client.receive(struct.pack(">i", size))


def test_the_largest_allowed_frame_is_taken() -> None:
    client = Client()
    client.receive(frame(b"x" * MAX_REQUEST_BYTES))
    assert len(client.requests[0]) == MAX_REQUEST_BYTES


def test_memory_follows_the_bytes_received_and_not_the_size_declared() -> None:
    client = Client()
    client.receive(struct.pack(">i", MAX_REQUEST_BYTES) + b"x" * 100)
    assert len(client.connection.buffer()) <= FIRST_OWN_BUFFER_BYTES
    client.receive(b"x" * 50_000)
    assert len(client.connection.buffer()) <= 2 * 50_104


def test_the_own_buffer_is_given_back_when_nothing_lies_in_it() -> None:
    client = Client()
    client.receive(frame(b"x" * 100_000))
    assert len(client.connection.buffer()) > SHARED_BYTES
    client.connection.trim()
    assert len(client.connection.buffer()) == SHARED_BYTES


def test_no_request_is_taken_up_while_too_much_waits_to_be_sent() -> None:
    client = Client()
    large = b"y" * 400_000
    client.receive(b"".join(frame(large) for _ in range(5)))
    waiting = sum(map(len, client.connection.outgoing))
    assert OUTGOING_LIMIT_BYTES < waiting <= OUTGOING_LIMIT_BYTES + len(large) + 3
    assert len(client.requests) < 5
    assert client.sent() == b"".join(b"re:" + large for _ in range(5))


class OvertakingClient(Client):
    """Requests that say so are answered later, and may be overtaken by others of their API."""

    def _dispatch(self, buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None] | None:
        request = bytes(buf[start:end])
        self.requests.append(request)
        if request.startswith((PRODUCE_KEY + b"later", COMMIT_KEY + b"later")):
            self.pending.append(Pending(may_be_overtaken=True))
            return self.pending[-1]
        return [b"re:" + request]


PRODUCE_KEY = struct.pack(">h", 0)
COMMIT_KEY = struct.pack(">h", 8)
LATER = frame(PRODUCE_KEY + b"later!")
NOW = PRODUCE_KEY + b"at once"
OTHER = b"other request"


def test_produces_are_taken_up_behind_one_that_waits_for_replicas_and_answered_in_order() -> None:
    client = OvertakingClient()
    client.receive(LATER + LATER + frame(NOW))
    assert len(client.requests) == 3
    assert client.connection.waiting_for is None
    client.pending[1].complete([b"second"])
    assert client.sent() == b""
    client.pending[0].complete([b"first"])
    assert client.sent() == b"firstsecondre:" + NOW


def test_any_other_request_waits_for_all_produces_before_it() -> None:
    client = OvertakingClient()
    client.receive(LATER + LATER + frame(OTHER))
    assert OTHER not in client.requests
    assert client.connection.waiting_for is not None
    client.pending[1].complete([b"second"])
    client.pending[0].complete([b"first"])
    assert client.sent() == b"firstsecondre:" + OTHER


def test_only_requests_of_the_same_api_are_taken_up_behind_one_that_waits() -> None:
    commit = frame(COMMIT_KEY + b"later!")
    client = OvertakingClient()
    client.receive(commit + commit + LATER)
    assert client.requests == [commit[4:], commit[4:]]
    client.pending[0].complete([b"first"])
    client.pending[1].complete([b"second"])
    assert client.sent() == b"firstsecond"
    assert client.requests == [commit[4:], commit[4:], LATER[4:]]


def test_the_request_behind_is_still_muted_when_only_some_produces_are_answered() -> None:
    client = OvertakingClient()
    client.receive(LATER + LATER + frame(OTHER))
    client.pending[0].complete([b"first"])
    assert client.sent() == b"first"
    assert OTHER not in client.requests
    client.pending[1].complete([b"second"])
    assert client.sent() == b"secondre:" + OTHER


def test_as_many_answers_may_be_owed_as_the_limit_says() -> None:
    client = OvertakingClient()
    client.receive(LATER * (MAX_OVERTAKING + 5))
    assert len(client.requests) == MAX_OVERTAKING
    client.pending[0].complete([b"first"])
    assert client.sent() == b"first"
    assert len(client.requests) == MAX_OVERTAKING + 1


def test_a_client_that_goes_away_abandons_all_that_is_owed() -> None:
    told: list[int] = []
    client = OvertakingClient()
    client.receive(LATER + LATER)
    for number, pending in enumerate(client.pending):
        pending.on_abandon = lambda number=number: told.append(number)
    client.connection.abandon()
    assert told == [0, 1]
