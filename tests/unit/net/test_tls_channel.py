"""The channel of TLS on real sockets: what OpenSSL keeps, handshakes, back pressure, and ends of connections."""

import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.certificates import Certificates, make_certificates
from kpy.config import BrokerConfig
from kpy.errors import WireError
from kpy.net.connection import Buffers, Dispatch
from kpy.net.poller import Poller
from kpy.net.sender import BUSY_ROUND
from kpy.net.tls_channel import PIECE_BYTES, PIECES_A_TURN, Tls
from kpy.pending import Pending
from kpy.storage.fs import File, FileRegion, OsFs
from kpy.tls_context import server_context
from tests.unit.net.test_channel import MAX_REQUEST_BYTES, EchoThatParks, echo, frame
from tests.unit.net.tls_client import TlsClient

LARGE = os.urandom(300_000)


class Ends:
    """What both ends of test connections need."""

    def __init__(self, certificates: Certificates) -> None:
        config = BrokerConfig.of({"listeners": "PLAINTEXT://:9092,SSL://:9093", **certificates.of_broker()})
        self.server = server_context(config, "SSL")
        self._client = ssl.create_default_context(cafile=str(certificates.ca))

    def listener(self) -> Tls:
        return Tls(lambda: self.server)

    def connect(self, poller: Poller, dispatch: Dispatch, listener: Tls, send_buffer_bytes: int = 0) -> TlsClient:
        ours, theirs = socket.socketpair()
        if send_buffer_bytes:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        for sock in (ours, theirs):
            sock.setblocking(False)
        poller.add(ours, "test-host", dispatch, listener)
        return TlsClient(theirs, self._client)

    def run(self, dispatch: Dispatch, test: Callable[[TlsClient, Poller], Awaitable[None]]) -> None:
        """Serves one end of a socket pair with `dispatch` while `test` has the other."""

        async def main() -> None:
            poller = new_poller()
            client = self.connect(poller, dispatch, self.listener())
            with trio.fail_after(10), client.sock:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(poller.run)
                    await test(client, poller)
                    nursery.cancel_scope.cancel()

        trio.run(main)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    return Ends(make_certificates(tmp_path_factory.mktemp("certificates")))


def new_poller() -> Poller:
    return Poller(MAX_REQUEST_BYTES, lambda: None, lambda: None)


def test_requests_are_answered(ends: Ends) -> None:
    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"request1") + frame(b"request2"))
        assert await client.receive(22) == b"re:request1re:request2"

    ends.run(echo, test)


def test_a_request_may_come_with_the_end_of_the_handshake(ends: Ends) -> None:
    async def test(client: TlsClient, poller: Poller) -> None:
        transmit, held = client.transmit, bytearray()

        async def hold_back(data: bytes) -> None:
            if poller_has_answered:
                held.extend(data)
            else:
                poller_has_answered.append(True)
                await transmit(data)

        poller_has_answered: list[bool] = []
        client.transmit = hold_back  # type: ignore[method-assign]  # The last flight is held back.
        await client.shake_hands()
        await transmit(bytes(held) + client.encrypted(frame(b"request1")))
        assert await client.receive(11) == b"re:request1"

    ends.run(echo, test)


def test_answers_that_do_not_fit_the_socket_are_sent_when_the_client_reads(ends: Ends) -> None:
    large = os.urandom(PIECE_BYTES * PIECES_A_TURN + 2_000_000)

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"request1") + frame(b"request2"))
        assert await client.receive(2 * len(large)) == large + large

    ends.run(lambda buf, start, end: [large], test)


@pytest.mark.parametrize("size", [10, PIECE_BYTES - 110, PIECE_BYTES, PIECE_BYTES + 1, 3_000_000])
def test_file_regions_are_sent_between_other_bytes(ends: Ends, tmp_path: Path, size: int) -> None:
    content = os.urandom(size + 200)
    path = tmp_path / "segment"
    path.write_bytes(content)
    file = File(OsFs(), str(path))

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"request1"))
        expected = b"head" + content[100 : 100 + size] + b"middle" + content[:size] + b"tail"
        assert await client.receive(len(expected)) == expected

    ends.run(
        lambda buf, start, end: [b"head", FileRegion(file, 100, size), b"middle", FileRegion(file, 0, size), b"tail"],
        test,
    )


def test_a_file_that_is_shorter_than_its_index_says_ends_the_connection(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(1000))
    file = File(OsFs(), str(path))

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"request1"))
        assert await client.receive(2000) == b""
        assert len(poller) == 0

    ends.run(lambda buf, start, end: [FileRegion(file, 0, 2000)], test)


Request = tuple[str, int]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_request_is_left_in_openssl(ends: Ends, data: st.DataObject) -> None:
    """However requests are cut into records, and records into what arrives at once; whatever waits or is not read."""
    kind = st.sampled_from(["now", "now", "later", "overtaken", "large"])
    requests = data.draw(st.lists(st.tuples(kind, st.sampled_from([9, 100, 5000, 40_000])), min_size=1, max_size=30))
    stream = b"".join(frame(name.encode().ljust(size, b".")) for name, size in requests)
    record_ends = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    bounds = zip([0, *record_ends], [*record_ends, len(stream)], strict=True)
    reads_late = data.draw(st.booleans())
    parked: list[Pending[Buffers | None]] = []

    def dispatch(buf: memoryview, start: int, end: int) -> Buffers | Pending[Buffers | None]:
        name = bytes(buf[start:end]).rstrip(b".")
        if name in (b"later", b"overtaken"):
            parked.append(Pending(may_be_overtaken=name == b"overtaken"))
            return parked[-1]
        return [b"%d" % (end - start), LARGE if name == b"large" else b""]

    expected = b"".join(
        b"%d" % size + (LARGE if name == "large" else b"") if name in ("now", "large") else b"answer"
        for name, size in requests
    )

    async def complete() -> None:
        while True:
            if parked:
                parked.pop(0).complete([b"answer"])
            await trio.lowlevel.checkpoint()

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        ciphertext = client.encrypted(*(stream[start:end] for start, end in bounds))
        cuts = data.draw(st.lists(st.integers(0, len(ciphertext)), max_size=8).map(sorted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.transmit, ciphertext, cuts)
            if reads_late:
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(complete)
            assert await client.receive(len(expected)) == expected
            nursery.cancel_scope.cancel()

    ends.run(dispatch, test)


def test_a_waiting_connection_is_muted_though_its_next_requests_are_decrypted(ends: Ends) -> None:
    dispatch = EchoThatParks()

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"parked!!") + frame(b"request2"), frame(b"request3"))
        await client.send(frame(b"request4"))
        while not dispatch.parked:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert dispatch.seen == [b"parked!!"]
        dispatch.parked[0].complete([b"late"])
        assert await client.receive(37) == b"latere:request2re:request3re:request4"

    ends.run(dispatch, test)


@pytest.mark.parametrize("send_buffer_bytes", [0, 4096])
def test_answers_of_a_busy_round_keep_their_order(ends: Ends, send_buffer_bytes: int) -> None:
    """They leave by the sender, where there is one; with a small buffer it cannot send them whole."""
    requests = [b"request-%d" % number for number in range(20)]
    answers = {request: request + os.urandom(7000) for request in requests}

    async def one(client: TlsClient) -> None:
        await client.shake_hands()
        for start in range(0, len(requests), 2):
            await client.send(*(frame(request) for request in requests[start : start + 2]))
            await trio.lowlevel.checkpoint()
        expected = b"".join(answers.values())
        assert await client.receive(len(expected)) == expected
        client.sock.close()

    async def main() -> None:
        poller, listener = new_poller(), ends.listener()
        with trio.fail_after(20):
            async with trio.open_nursery() as serving:
                serving.start_soon(poller.run)
                async with trio.open_nursery() as clients:
                    for _ in range(2 * BUSY_ROUND):
                        made = ends.connect(
                            poller,
                            lambda buf, start, end: [answers[bytes(buf[start:end])]],
                            listener,
                            send_buffer_bytes,
                        )
                        clients.start_soon(one, made)
                serving.cancel_scope.cancel()

    trio.run(main)


def test_a_malformed_request_closes_its_connection_after_the_answers_before_it(ends: Ends) -> None:
    def dispatch(buf: memoryview, start: int, end: int) -> Buffers:
        if bytes(buf[start:end]) == b"garbage!":
            raise WireError("garbage")
        return echo(buf, start, end)

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"request1") + frame(b"garbage!") + frame(b"request3"))
        assert await client.receive(1000) == b"re:request1"
        assert client.was_told_the_end
        assert len(poller) == 0

    ends.run(dispatch, test)


def test_a_client_is_told_of_the_end_when_the_broker_stops(ends: Ends) -> None:
    async def main() -> None:
        poller = new_poller()
        client = ends.connect(poller, echo, ends.listener())
        with trio.fail_after(10), client.sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                await client.shake_hands()
                await client.send(frame(b"request1"))
                assert await client.receive(11) == b"re:request1"
                nursery.cancel_scope.cancel()
            assert await client.receive(1) == b""
            assert client.was_told_the_end

    trio.run(main)


def test_what_a_client_asked_before_its_last_words_is_answered(ends: Ends) -> None:
    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.transmit(client.encrypted(frame(b"request1")) + client.last_words())
        client.sock.shutdown(socket.SHUT_WR)
        assert await client.receive(1000) == b"re:request1"
        assert len(poller) == 0

    ends.run(echo, test)


def test_a_client_that_closes_while_it_waits_abandons_the_answer(ends: Ends) -> None:
    abandoned: list[bool] = []
    parked: list[Pending[Buffers | None]] = []

    def dispatch(buf: memoryview, start: int, end: int) -> Pending[Buffers | None]:
        parked.append(Pending(lambda: abandoned.append(True)))
        return parked[-1]

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        await client.send(frame(b"parked!!"))
        while not parked:
            await trio.lowlevel.checkpoint()
        client.sock.close()
        while len(poller):
            await trio.lowlevel.checkpoint()
        assert abandoned

    ends.run(dispatch, test)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (frame(b"\0\x12\0\0\0\0\0\7"), "the SSL handshake failed: "),
        (b"GET / HTTP/1.1\r\n\r\n", "the SSL handshake failed: http request"),
        (b"\x16\x03\x01\x00\x05hello", "the SSL handshake failed: "),
    ],
)
def test_a_client_that_speaks_no_tls_is_let_go_with_one_line_that_is_no_warning(
    ends: Ends, caplog: pytest.LogCaptureFixture, said: bytes, reason: str
) -> None:
    caplog.set_level(logging.DEBUG, "kpy.net")

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.transmit(said)
        while len(poller):
            await trio.lowlevel.checkpoint()

    ends.run(echo, test)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "test-host" in caplog.text
    assert reason in caplog.text


def test_a_damaged_record_ends_the_connection(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kpy.net")

    async def test(client: TlsClient, poller: Poller) -> None:
        await client.shake_hands()
        record = bytearray(client.encrypted(frame(b"request1")))
        record[-1] ^= 1
        await client.transmit(bytes(record))
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            await client.receive(1)
        assert len(poller) == 0

    ends.run(echo, test)
    assert "SSL failed: " in caplog.text


def test_a_handshake_has_as_long_as_a_connection_may_be_idle_however_it_is_spread_out(ends: Ends) -> None:
    async def main() -> None:
        poller = new_poller()
        client = ends.connect(poller, echo, ends.listener())
        hello = client.hello()
        with client.sock:
            channel = next(iter(poller._channels.values()))
            began = channel.last_active
            client.sock.send(hello[:10])
            channel.on_readable(began + 100)
            assert channel.last_active == began
            poller.close_idle(-1)
            assert channel.closed
            assert client.sock.recv(100) == b""

    trio.run(main)


def test_of_several_handshakes_one_goes_on_in_each_round(ends: Ends) -> None:
    async def main() -> None:
        poller, listener = new_poller(), ends.listener()
        clients = [ends.connect(poller, echo, listener) for _ in range(2)]
        channels = list(poller._channels.values())
        for client in clients:
            client.sock.send(client.hello())
        for channel in channels:
            channel.on_readable(1.0)
        assert clients[0].sock.recv(100)
        with pytest.raises(BlockingIOError):
            clients[1].sock.recv(100)
        channels[1].on_readable(2.0)
        assert clients[1].sock.recv(100)
        for channel in channels:
            channel.close()
        for client in clients:
            client.sock.close()

    trio.run(main)


def test_new_connections_have_the_context_that_the_listener_has_then(ends: Ends, tmp_path: Path) -> None:
    others = Ends(make_certificates(tmp_path))

    async def main() -> None:
        in_force = ends
        poller, listener = new_poller(), Tls(lambda: in_force.server)
        old = ends.connect(poller, echo, listener)
        with trio.fail_after(10), old.sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                await old.shake_hands()
                in_force = others
                new = others.connect(poller, echo, listener)
                with new.sock:
                    await new.shake_hands()
                    for client in (old, new):
                        await client.send(frame(b"request1"))
                        assert await client.receive(11) == b"re:request1"
                nursery.cancel_scope.cancel()

    trio.run(main)
