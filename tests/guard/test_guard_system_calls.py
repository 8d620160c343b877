"""Which system calls a Produce and a Fetch make in a real broker, and how many.

system_calls.txt holds what was agreed on. strace writes down every call of the broker, and the client says where a
scenario begins and ends: by an ApiVersions request whose client id is seen in the trace. A client that has all answers
before it sends the next requests causes as many calls on a busy machine as on an idle one, but for those by which the
broker waits: their number depends on the clock, and they are left out. Figures are to the tenth, so what the broker
does now and then, or when a socket is full for a moment, does not show.
"""

import re
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from compat.harness import BACKENDS, Backend, BrokerProcess, require_tool, running, wait_until
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from tests.broker.raw_client import frame
from tests.guard.hot_path import (
    CONTENTS,
    CREATE_TOPICS,
    CREATE_TOPICS_VERSION,
    LARGE_RECORD_BYTES,
    REQUESTS,
    SETTINGS,
    Scenario,
    check,
    check_answer,
    figure,
    produce_frame,
    scenarios,
)

AGREED = Path(__file__).with_name("system_calls.txt")
API_VERSIONS = 18
CACHESTAT_UNNAMED = "syscall_0x1c3"
"""How an strace before 6.5 calls cachestat, by its number on every architecture."""
# trio arms its epoll each time before it falls asleep on it.
WAITING = {"epoll_wait", "epoll_pwait", "epoll_ctl", "futex", "sched_yield", "clock_nanosleep", "restart_syscall"}
SHOWN_BYTES = "96"
"""Of what is received, in the trace: enough for the client id of a mark."""
TIMEOUT_S = 60.0

HEAD = """\
# The system calls of one request in a running broker, waiting apart. Rewritten by: REWRITE=1 pytest tests/guard
"""


class Client:
    """A blocking connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        # Room for the largest answer, so that the broker can send it at once.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * LARGE_RECORD_BYTES)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def exchange(self, request: bytes, in_flight: int = 1) -> list[bytes]:
        self._socket.sendall(in_flight * request)
        return [self._reader.read(int.from_bytes(self._reader.read(4))) for _ in range(in_flight)]

    def mark(self, name: str) -> None:
        header = struct.pack(">hhih", API_VERSIONS, 0, 1, len(name)) + name.encode()
        self.exchange(struct.pack(">i", len(header)) + header)


def traced_broker(work_dir: Path) -> BrokerProcess:
    """Its calls are in `trace`. With -D the broker is the process that is started, and strace its grandchild."""
    strace = [require_tool("strace"), "-D", "-f", "-qq", "-s", SHOWN_BYTES, "-o", str(work_dir / "trace")]

    def command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
        return [*strace, *BACKENDS["kpy"].command(port, data_dir, settings)]

    return BrokerProcess(work_dir, SETTINGS, Backend(command, frozenset({0})))


def carry_out(scenario: Scenario, number: int, client: Client) -> None:
    (answer,) = client.exchange(scenario.request)
    check_answer(scenario, answer)
    client.mark(f"guard-begin-{number}")
    for _ in range(REQUESTS // scenario.in_flight):
        client.exchange(scenario.request, scenario.in_flight)
    client.mark(f"guard-end-{number}")


def calls_of(number: int, trace: str) -> Counter[str]:
    """By name, between the marks of a scenario."""
    begin = trace.index("\n", trace.index(f"guard-begin-{number}"))
    end = trace.rindex("\n", begin, trace.index(f"guard-end-{number}"))
    named = trace[begin:end].replace(CACHESTAT_UNNAMED, "cachestat")
    return Counter(re.findall(r"^\d+ +(\w+)\(", named, re.MULTILINE))


def shown(scenario: Scenario, calls: Counter[str]) -> str:
    figures = {name: figure(calls[name], digits=1) for name in sorted(calls.keys() - WAITING)}
    lines = [f"    {each:>6}  {name}" for name, each in figures.items() if each != "0"]
    return "\n".join([f"## {scenario.name}", *lines]) + "\n"


def test_a_request_makes_the_system_calls_that_were_agreed_on(tmp_path: Path) -> None:
    with running(traced_broker(tmp_path)) as broker:
        client = Client(broker.port)
        topics = [CreatableTopic(name, 1, 1, []) for name in CONTENTS]
        client.exchange(frame(CREATE_TOPICS, CreateTopicsRequest(topics, 1000), CREATE_TOPICS_VERSION))
        for name, size_bytes in CONTENTS.items():
            if size_bytes:
                client.exchange(produce_frame(name, size_bytes))
        cases = list(enumerate(scenarios()))
        for number, scenario in cases:
            carry_out(scenario, number, client)
        client.close()
        broker.stop()
    trace_file = tmp_path / "trace"
    last_mark = f"guard-end-{len(cases) - 1}"
    wait_until(lambda: last_mark in trace_file.read_text(), "strace has written down the last mark")
    trace = trace_file.read_text()
    check(AGREED, "\n".join([HEAD, *(shown(scenario, calls_of(number, trace)) for number, scenario in cases)]))
