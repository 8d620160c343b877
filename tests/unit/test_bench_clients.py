"""The benchmark's clients in C: what they count and refuse, and that connections stay open until the word is given."""

import resource
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.link import API_VERSIONS_REQUEST, CORRELATION_ID, Link
from bench.proc import raise_descriptor_limit, require_descriptors
from bench.programs import NotInstalledError, WorkFailedError, loadgen, rdload, run, talking
from compat.harness import require_module, require_tool, running_broker

ERROR_POSITION = 20


class FakeBroker(socketserver.ThreadingTCPServer):
    """Answers each request of API_VERSIONS_REQUEST's size with `answer`, in pieces of `piece_bytes`."""

    daemon_threads = True
    request_queue_size = 50

    def __init__(self, answer: bytes, piece_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.answer = answer
        self.piece_bytes = piece_bytes
        self.open = 0
        self.most_open = 0
        self.lock = threading.Lock()

    def count(self, change: int) -> None:
        with self.lock:
            self.open += change
            self.most_open = max(self.most_open, self.open)


class Answering(socketserver.StreamRequestHandler):
    server: FakeBroker
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.server.count(1)
        while self.rfile.read(len(API_VERSIONS_REQUEST)):
            for at in range(0, len(self.server.answer), self.server.piece_bytes):
                try:
                    self.request.sendall(self.server.answer[at : at + self.server.piece_bytes])
                except ConnectionError:
                    break
        self.server.count(-1)


def answer(error_code: int = 0, size: int = 300, correlation_id: int = CORRELATION_ID) -> bytes:
    head = struct.pack(">ii", size - 4, correlation_id).ljust(ERROR_POSITION, b"\xff")
    return (head + error_code.to_bytes(2)).ljust(size, b"\xff")


@contextmanager
def fake_broker(answer: bytes, piece_bytes: int = 1 << 20) -> Iterator[FakeBroker]:
    with FakeBroker(answer, piece_bytes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def frame_file(tmp_path: Path) -> str:
    require_tool("gcc")
    path = tmp_path / "frame"
    path.write_bytes(API_VERSIONS_REQUEST)
    return str(path)


def command(server: FakeBroker, mode: str, frame_file: str, connections: int, *load: str) -> list[str]:
    port = str(server.server_address[1])
    return [loadgen(), mode, port, frame_file, str(connections), *load, str(ERROR_POSITION)]


@pytest.mark.parametrize("piece_bytes", [1, 7, 299, 300, 1000])
def test_answers_are_counted_however_they_are_cut(frame_file: str, piece_bytes: int) -> None:
    with (
        fake_broker(answer(), piece_bytes) as server,
        talking(command(server, "load", frame_file, 3, "5", "0.0", "0.3")) as client,
    ):
        assert float(client.hear()) > 0
        client.say()
        answers, seconds, all_answers = client.hear().split()
    assert 0 < int(answers) <= int(all_answers)
    assert float(seconds) >= 0.3


def test_an_answer_longer_than_a_read_is_one_answer(frame_file: str) -> None:
    with (
        fake_broker(answer(size=1_000_000)) as server,
        talking(command(server, "load", frame_file, 1, "1", "0.0", "0.3")) as client,
    ):
        client.hear()
        client.say()
        answers, _, _ = client.hear().split()
    assert int(answers) > 0


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (answer(error_code=6), "error code 6"),
        (answer(correlation_id=8), "wrong correlation id"),
        (struct.pack(">i", 1 << 30).ljust(300, b"\0"), "unlikely size"),
        (struct.pack(">i", 4).ljust(300, b"\0"), "unlikely size"),
    ],
)
def test_a_wrong_answer_ends_the_client(frame_file: str, wrong: bytes, complaint: str) -> None:
    with (
        fake_broker(wrong) as server,
        talking(command(server, "idle", frame_file, 1)) as client,
        pytest.raises(WorkFailedError, match=complaint),
    ):
        client.hear()


def test_idle_connections_are_open_until_the_client_is_told(frame_file: str) -> None:
    """And more of them than may wait for their answer at once."""
    with fake_broker(answer()) as server, talking(command(server, "idle", frame_file, 100)) as client:
        assert float(client.hear()) > 0
        assert server.open == 100
        client.say()
        with pytest.raises(WorkFailedError, match="ended in 0"):
            client.hear()
    assert server.most_open == 100


def test_a_client_that_has_ended_cannot_be_told(frame_file: str) -> None:
    with (
        fake_broker(answer(error_code=6)) as server,
        talking(command(server, "idle", frame_file, 1)) as client,
    ):
        with pytest.raises(WorkFailedError):
            client.hear()
        with pytest.raises(WorkFailedError, match="loadgen has ended"):
            client.say()


def test_a_client_that_is_silent_is_ended(frame_file: str) -> None:
    with (
        fake_broker(b"") as server,
        talking(command(server, "idle", frame_file, 1)) as client,
        pytest.raises(WorkFailedError, match="-9"),
    ):
        client.hear(timeout_s=0.05)


@pytest.fixture
def thousand(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A broker's address with a topic "bench", and the command that produces 1,000 records of 100 bytes to that."""
    require_tool("gcc")
    require_module("confluent_kafka")
    payloads = tmp_path / "payloads"
    payloads.write_text("x" * 100 + "\n")
    with running_broker(tmp_path / "broker") as broker:
        with Link(broker.port) as link:
            link.create_topic("bench")
        yield broker.bootstrap, [rdload(), "produce", broker.bootstrap, "bench", str(payloads), "1000"]


def test_a_producer_keeps_to_its_rate(thousand: tuple[str, list[str]]) -> None:
    _, produce = thousand
    paced_s = float(run([*produce, "rate=2000"]))
    free_s = float(run([*produce, "linger.ms=0"]))
    assert paced_s >= 0.48  # When the last 64 of 1,000 are due.
    assert free_s < paced_s


def test_a_consumer_that_waits_reads_when_it_is_told(thousand: tuple[str, list[str]]) -> None:
    bootstrap, produce = thousand
    run(produce)
    with talking([rdload(), "consume", bootstrap, "bench", "1000", "waits=1"]) as consumer:
        assert consumer.hear() == "ready\n"
        told = time.monotonic()
        consumer.say()
        seconds, size = consumer.hear().split()
        waited_s = time.monotonic() - told
    assert float(seconds) <= waited_s
    assert int(size) == 1000 * 100


def test_descriptors_that_the_system_does_not_allow_are_missed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_descriptor_limit()
        allowed, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert allowed >= before[0] or before[0] == resource.RLIM_INFINITY
        assert hard == before[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        require_descriptors(1000)
        with pytest.raises(NotInstalledError, match="1,001 file descriptors are needed, and 1,000 allowed"):
            require_descriptors(1001)
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
