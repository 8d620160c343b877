"""How much Python a Produce and a Fetch run through, from frame to answer: every function of kpy, and how often.

python_work.txt holds what was agreed on, and python_work_with_accelerator.txt what is left of it where C reads and
writes the messages: the one is compared that holds for how kpy runs here. Only kpy's own functions count, and no
comprehension, which are functions before Python 3.12 and none since: so the text is the same for every Python. The
frames come through a real socket and the records lie in real logs; what is left out is the poller's wait for them,
whose rounds depend on the clock.
"""

import gc
import socket
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import trio
import trio.testing

import kpy
from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.registry import Dispatcher
from kpy.config import BrokerConfig
from kpy.native import NATIVE
from kpy.net.poller import GONE, READ, Poller
from kpy.server import now_ms, opened
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from tests.broker.raw_client import frame
from tests.guard.hot_path import (
    CONTENTS,
    CREATE_TOPICS,
    CREATE_TOPICS_VERSION,
    REQUESTS,
    SETTINGS,
    Scenario,
    check,
    check_answer,
    figure,
    produce_frame,
    scenarios,
)

AGREED = Path(__file__).with_name("python_work_with_accelerator.txt" if NATIVE else "python_work.txt")
KPY = Path(kpy.__file__).parent
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
MAX_REQUEST_BYTES = 1 << 20
BLOCKS_A_REQUEST = 0.1
"""What may stay allocated: counters that grow beyond small numbers, an index entry now and then, and no object of a
request."""

HEAD = """\
# What one request runs through, from its frame to its answer: kpy's own functions, and how often each is called.
# Rewritten by: REWRITE=1 pytest tests/guard
"""


class OneConnection:
    """A broker without a listener, and one connection to it whose requests are served when the test says so."""

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        ours, self._socket = socket.socketpair()
        for end in (ours, self._socket):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        self._socket.settimeout(10)
        purgatory = broker.replicas.purgatory
        self._purgatory = purgatory
        self._poller = Poller(MAX_REQUEST_BYTES, purgatory.begin_round, purgatory.end_round)
        dispatcher = Dispatcher(Client("localhost", "PLAINTEXT"), broker, nursery.start_soon)
        self._fd = self._poller.add(ours, "localhost", dispatcher).fd
        self._received = bytearray(1 << 20)

    def close(self) -> None:
        self._socket.close()
        self._poller._serve([(self._fd, GONE)], trio.current_time())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def serve(self) -> None:
        """What the poller does when it finds the socket readable."""
        self._purgatory.begin_round()
        self._poller._serve([(self._fd, READ)], trio.current_time())
        self._purgatory.end_round()

    def answer(self) -> memoryview:
        """One answer without its size prefix, until the next is asked for."""
        view = memoryview(self._received)
        assert self._socket.recv_into(view, 4, socket.MSG_WAITALL) == 4
        size = int.from_bytes(view[:4])
        assert self._socket.recv_into(view, size, socket.MSG_WAITALL) == size
        return view[:size]


async def measured(data_dir: Path) -> list[tuple[Scenario, Counter[CodeType], float]]:
    """Each scenario with the calls of its requests, and the blocks that stay allocated for each."""
    found: list[tuple[Scenario, Counter[CodeType], float]] = []
    config = BrokerConfig.of({"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(data_dir), **SETTINGS})
    async with opened(config, now_ms) as opened_broker, trio.open_nursery() as nursery:
        cluster = opened_broker.broker.cluster
        await cluster.register({"PLAINTEXT": ("127.0.0.1", 9092)}, {"PLAINTEXT": "PLAINTEXT"}, None, patience_ms=0)
        nursery.start_soon(cluster.run)
        connection = OneConnection(opened_broker.broker, nursery)
        topics = [CreatableTopic(name, 1, 1, []) for name in CONTENTS]
        connection.send(frame(CREATE_TOPICS, CreateTopicsRequest(topics, 1000), CREATE_TOPICS_VERSION))
        connection.serve()
        await trio.testing.wait_all_tasks_blocked()
        connection.answer()
        for name, size_bytes in CONTENTS.items():
            if size_bytes:
                exchange(connection, produce_frame(name, size_bytes), 1)
        for scenario in scenarios():
            exchange(connection, scenario.request, 1, scenario)
            found.append((scenario, calls_of(connection, scenario), kept_blocks(connection, scenario)))
        connection.close()
        nursery.cancel_scope.cancel()
    return found


def exchange(connection: OneConnection, request: bytes, in_flight: int, checked: Scenario | None = None) -> None:
    connection.send(in_flight * request)
    connection.serve()
    for _ in range(in_flight):
        answer = connection.answer()
        if checked is not None:
            check_answer(checked, bytes(answer))


def calls_of(connection: OneConnection, scenario: Scenario) -> Counter[CodeType]:
    """How often each function was called by REQUESTS requests."""
    calls: Counter[CodeType] = Counter()

    def count(called: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[called.f_code] += 1

    for _ in range(REQUESTS // scenario.in_flight):
        connection.send(scenario.in_flight * scenario.request)
        previous = sys.getprofile()
        sys.setprofile(count)
        try:
            connection.serve()
        finally:
            sys.setprofile(previous)
        for _ in range(scenario.in_flight):
            connection.answer()
    return calls


def kept_blocks(connection: OneConnection, scenario: Scenario) -> float:
    """Blocks of memory that stay allocated for each request."""
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(REQUESTS // scenario.in_flight):
        exchange(connection, scenario.request, scenario.in_flight)
    gc.collect()
    return (sys.getallocatedblocks() - before) / REQUESTS


def shown(scenario: Scenario, calls: Counter[CodeType]) -> str:
    """By file, in the order in which they are first come to."""
    by_file: dict[str, list[str]] = defaultdict(list)
    total = 0
    for code, count in calls.items():
        path = Path(code.co_filename)
        if path.is_relative_to(KPY) and not code.co_qualname.endswith(COMPREHENSIONS):
            name = path.relative_to(KPY.parent).as_posix()
            by_file[name].append(f"    {figure(count, digits=2):>6}  {code.co_qualname}")
            total += count
    lines = [f"## {scenario.name}: {figure(total, digits=2)} calls in {len(by_file)} files"]
    for name, functions in by_file.items():
        lines += [name, *functions]
    return "\n".join(lines) + "\n"


def test_a_request_runs_through_what_was_agreed_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = trio.run(measured, tmp_path)
    check(AGREED, "\n".join([HEAD, *(shown(scenario, calls) for scenario, calls, _ in found)]))
    kept = {scenario.name: blocks for scenario, _, blocks in found}
    assert not {name: blocks for name, blocks in kept.items() if blocks > BLOCKS_A_REQUEST}
