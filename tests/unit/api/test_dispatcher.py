"""Dispatcher: header in, answer out, now or later."""

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from kpy.api.client import Client
from kpy.api.registry import ROUTES, Dispatcher
from kpy.errors import WireError
from kpy.net.connection import Buffers
from kpy.pending import Pending
from kpy.wire.heartbeat import HeartbeatRequest, HeartbeatResponse, encode_request, encode_response

HEARTBEAT = 12
SECRET = 0x0BADCAFE


def request(version: int, client_id: bytes | None = b"me", tags: bytes = b"\0") -> memoryview:
    """A heartbeat with its header, without a size."""
    name = struct.pack(">h", -1) if client_id is None else struct.pack(">h", len(client_id)) + client_id
    head = struct.pack(">hhi", HEARTBEAT, version, SECRET) + name + (tags if version >= 4 else b"")
    return memoryview(head + b"".join(encode_request(HeartbeatRequest("g", 3, "m"), version)))


def answer(version: int, response: HeartbeatResponse) -> bytes:
    body = struct.pack(">i", SECRET) + (b"\0" if version >= 4 else b"") + b"".join(encode_response(response, version))
    return struct.pack(">i", len(body)) + body


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Dispatcher, Client]]:
    """Puts a handler in place of Heartbeat's, and gives the dispatcher of a connection."""

    def serve(handler: Callable[..., Any], spawn: Callable[..., None] = pytest.fail) -> tuple[Dispatcher, Client]:
        ROUTES[HEARTBEAT].load()
        monkeypatch.setattr(ROUTES[HEARTBEAT], "handler", handler)
        client = Client("10.1.2.3", "PLAINTEXT")
        return Dispatcher(client, None, spawn), client  # type: ignore[arg-type]  # the handlers here need no broker

    return serve


@pytest.mark.parametrize("version", range(5))
def test_a_request_reaches_its_handler_and_the_answer_its_client(serve: Any, version: int) -> None:
    seen: list[tuple[HeartbeatRequest, str, int]] = []

    def handler(message: HeartbeatRequest, client: Client, broker: object) -> HeartbeatResponse:
        seen.append((message, client.client_id, client.version))
        return HeartbeatResponse(0, 27)

    dispatch, _ = serve(handler)
    data = request(version)
    assert b"".join(dispatch(data, 0, len(data))) == answer(version, HeartbeatResponse(0, 27))
    assert seen == [(HeartbeatRequest("g", 3, "m"), "me", version)]


def test_the_client_id_is_that_of_the_latest_request(serve: Any) -> None:
    seen: list[str] = []

    def handler(message: HeartbeatRequest, client: Client, broker: object) -> None:
        seen.append(client.client_id)

    dispatch, _ = serve(handler)
    for name in (b"one", b"one", None, b"two", b""):
        data = request(3, name)
        assert dispatch(data, 0, len(data)) is None
    assert seen == ["one", "one", "", "two", ""]


def test_unknown_tags_in_the_header_are_passed_over(serve: Any) -> None:
    dispatch, _ = serve(lambda message, client, broker: HeartbeatResponse(0, 0))
    data = request(4, tags=b"\x02\x05\x01x\x07\x00")
    assert b"".join(dispatch(data, 0, len(data))) == answer(4, HeartbeatResponse())


@pytest.mark.parametrize("version", [2, 4])
def test_every_truncation_of_a_request_is_malformed(serve: Any, version: int) -> None:
    dispatch, _ = serve(lambda message, client, broker: HeartbeatResponse(0, 0))
    data = request(version)
    for end in range(len(data)):
        with pytest.raises(WireError):
            dispatch(data, 0, end)


def test_a_client_id_that_is_no_text_is_malformed(serve: Any) -> None:
    dispatch, _ = serve(lambda message, client, broker: HeartbeatResponse(0, 0))
    data = request(0, b"\xff\xfe")
    with pytest.raises(WireError, match="UTF-8"):
        dispatch(data, 0, len(data))


def test_a_pending_answer_is_encoded_in_the_version_of_its_request(serve: Any) -> None:
    parked: list[Pending[HeartbeatResponse]] = []

    def handler(message: HeartbeatRequest, client: Client, broker: object) -> Pending[HeartbeatResponse]:
        parked.append(Pending())
        return parked[-1]

    dispatch, client = serve(handler)
    data = request(4)
    waiting = dispatch(data, 0, len(data))
    delivered: list[Buffers | None] = []
    waiting.deliver_to(delivered.append)
    client.version = 0
    parked[0].complete(HeartbeatResponse(0, 22))
    [sent] = delivered
    assert sent is not None
    assert b"".join(sent) == answer(4, HeartbeatResponse(0, 22))


def test_abandoning_the_answer_tells_its_owner(serve: Any) -> None:
    told: list[bool] = []
    dispatch, _ = serve(lambda message, client, broker: Pending(lambda: told.append(True)))
    data = request(1)
    dispatch(data, 0, len(data)).abandon()
    assert told == [True]


def run_coroutine_handler(serve: Any, handler: Callable[..., Any], abandon: bool = False) -> list[Buffers | None]:
    """What is delivered for one request whose handler is a coroutine."""
    delivered: list[Buffers | None] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            dispatch, _ = serve(handler, nursery.start_soon)
            data = request(1)
            waiting = dispatch(data, 0, len(data))
            waiting.deliver_to(delivered.append)
            if abandon:
                await trio.testing.wait_all_tasks_blocked()
                waiting.abandon()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return delivered


def test_a_handler_may_wait(serve: Any) -> None:
    async def handler(message: HeartbeatRequest, client: Client, broker: object) -> HeartbeatResponse:
        await trio.sleep(random.random())
        return HeartbeatResponse(0, 16)

    [sent] = run_coroutine_handler(serve, handler)
    assert sent is not None
    assert b"".join(sent) == answer(1, HeartbeatResponse(0, 16))


def test_a_fault_in_a_waiting_handler_closes_the_connection(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(message: HeartbeatRequest, client: Client, broker: object) -> HeartbeatResponse:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    assert run_coroutine_handler(serve, handler) == [None]
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_goes_away_cancels_the_wait(serve: Any) -> None:
    cancelled: list[bool] = []

    async def handler(message: HeartbeatRequest, client: Client, broker: object) -> HeartbeatResponse:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    assert run_coroutine_handler(serve, handler, abandon=True) == []
    assert cancelled == [True]
