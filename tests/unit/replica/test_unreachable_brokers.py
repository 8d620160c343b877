"""Brokers that advertise an address where nobody can reach them, and controllers that refuse: how often they are asked,
and what the log says of it. On a mock clock.
"""

import logging
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from kpy.controller.broker_requests import BrokerRequests
from kpy.controller.machine import Observed
from kpy.controller_channels import ControllerChannels
from kpy.errors import ErrorCode
from kpy.metadata.image import BrokerImage
from kpy.net.poller import Poller
from kpy.peers import PeerChannel, PeerError
from kpy.replica.alter_partition import AlterPartitionSender
from kpy.replica.fetchers import Fetchers
from kpy.replica.leader import IsrChange
from kpy.replica.membership import Membership
from kpy.wire.alter_partition import AlterPartitionRequest, AlterPartitionResponse

MINUTES = 10


class Attempts:
    """Connects to nobody, and counts."""

    def __init__(self, error: Exception) -> None:
        self.count = 0
        self._error = error

    async def __call__(self, *_: object) -> trio.SocketStream:
        self.count += 1
        raise self._error


def run_for(seconds: float, *tasks: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task)

    trio.run(main, clock=MockClock(autojump_threshold=0))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(params=[OSError("refused"), UnicodeError("label too long"), OverflowError("port must be 0-65535")])
def attempts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    attempts = Attempts(cast("Exception", request.param))
    monkeypatch.setattr(trio, "open_tcp_stream", attempts)
    return attempts


def test_the_controller_tries_once_a_second_and_says_so_once_a_minute(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.monotonic", trio.current_time)
    caplog.set_level(logging.INFO)
    requests = BrokerRequests(1, 1, "PLAINTEXT")
    away = BrokerImage(2, None, {"PLAINTEXT": ("nowhere", 1)}, 5)
    requests.look(Observed({2: away}), deletion_enabled=True)
    monkeypatch.setattr(requests, "take", lambda _: pytest.fail("a batch is made that cannot be sent"))
    channels = ControllerChannels(lambda: requests, lambda: None, "1", 30_000)
    run_for(60 * MINUTES, channels.run)
    assert 59 * MINUTES < attempts.count < 62 * MINUTES
    assert said(caplog)[0].startswith("broker 2 cannot be told who leads: ")
    assert MINUTES - 1 <= len(said(caplog)) <= MINUTES + 1


def test_a_follower_tries_every_backoff_and_says_so_once_a_minute(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.monotonic", trio.current_time)
    caplog.set_level(logging.INFO)
    fetchers = Fetchers(
        1,
        Membership(7),
        lambda leader, client_id: PeerChannel(attempts, client_id, 30_000, Poller(1024, lambda: None, lambda: None)),
        now_ms=lambda: 0,
    )

    async def follow() -> None:
        fetchers.follow(cast("Any", Followed()))

    run_for(60 * MINUTES, follow, fetchers.run)
    assert 50 * MINUTES < attempts.count < 62 * MINUTES
    assert said(caplog)[0].startswith("fetching from broker 2 failed: ")
    assert MINUTES - 1 <= len(said(caplog)) <= MINUTES + 1


class Followed:
    """A partition of which only the log's ends are asked for."""

    topic, partition, leader, leader_epoch = "t", 0, 2, 3
    unflushed = ()

    class log:  # noqa: N801 - the attribute's name
        topic_id = bytes(16)
        log_start_offset = log_end_offset = high_watermark = 0

        class leader_epochs:  # noqa: N801 - as above
            latest_epoch = -1


class Leading:
    """A partition of which an ISR is proposed."""

    topic, partition = "t", 0

    def __init__(self, change: IsrChange) -> None:
        self.leadership = type("Leadership", (), {"pending": change})
        self.log = type("Log", (), {"topic_id": bytes(16)})
        self.settled = False

    def isr_settled(self, *_: object) -> None:
        self.settled = True


@pytest.mark.parametrize("problem", [ErrorCode.STALE_BROKER_EPOCH, ErrorCode.NOT_CONTROLLER, None])
def test_a_controller_that_refuses_is_asked_less_and_less_often(
    problem: ErrorCode | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("time.monotonic", trio.current_time)
    caplog.set_level(logging.INFO)
    asked_at: list[float] = []

    async def refuse(key: int, request: AlterPartitionRequest, version: int) -> AlterPartitionResponse:
        asked_at.append(trio.current_time())
        if problem is None:
            raise PeerError("nobody is known to be the controller")
        return AlterPartitionResponse(error_code=problem)

    sender = AlterPartitionSender(1, Membership(7), cast("Any", refuse))
    change = IsrChange((1,), 0, 0, frozenset({1, 2}))
    sender.propose(cast("Any", Leading(change)), change)
    run_for(60 * MINUTES, sender.run)
    pauses_ms = [round(1000 * (later - earlier)) for earlier, later in pairwise(asked_at)]
    assert pauses_ms[:7] == [50, 100, 200, 400, 800, 1000, 1000]
    assert set(pauses_ms[7:]) == {1000}
    assert MINUTES - 1 <= len(said(caplog)) <= MINUTES + 1
