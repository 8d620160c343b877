"""A broker without sockets that dies in any call that changes its disk, and comes back, in simulated time.

The disk is tests/fault/simulated_disk.py's: a SIGKILL leaves all that its calls have done, and a power cut what has
been synced and any part of the rest. Threads are tasks that take their time, so that a seed brings all of it back.
"""

import copy
import random
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.config import BrokerConfig
from kpy.pending import Pending
from kpy.server import opened
from tests.fault.simulated_disk import SimulatedDisk
from tests.fault.storage_fs import Crash

CALLS_A_LIFE = 600
"""How many calls change the disk before the broker dies, at most."""
SYNC_S = 0.02
"""How long a thread's work takes, at most."""
DOWN_S = 1.0
RETRY_S = 0.05
MAX_RETRIES = 200
START_MS = 1_700_000_000_000


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1_000)


class DyingBroker:
    """The one broker, as long as it is up. With `power_fails` half of its deaths are power cuts.

    What it keeps in its metadata store is on the real disk, where every change is synced.
    """

    def __init__(self, directory: Path, seed: int, settings: Mapping[str, str], *, power_fails: bool) -> None:
        self.random = random.Random(seed)
        self.broker: Broker | None = None
        self.life = 0
        self.may_die = False
        self._config = BrokerConfig.of({"log.dirs": str(directory), "listeners": "PLAINTEXT://127.0.0.1:0", **settings})
        self._power_fails = power_fails
        self._disk = SimulatedDisk()
        self._died = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.trace: list[str] = []
        """What was asked and what became of it, and every death."""

    def simulate(self, main: Callable[[], Coroutine[Any, Any, None]], patch: pytest.MonkeyPatch) -> None:
        """Run `main` in simulated time, the same way for the same seed."""
        core: Any = trio._core._run  # type: ignore[attr-defined]
        patch.setattr(core, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        core._r.seed(self.random.random())
        patch.setattr("kpy.server.run_in_thread", self._run_in_thread)
        trio.run(main, clock=MockClock(autojump_threshold=0))

    async def run(self) -> None:
        """One life after the other, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                self._died = trio.Event()
                if self.may_die:
                    self._disk.arm(self.random.randrange(CALLS_A_LIFE), None)
                try:
                    await self._live()
                except* Crash:
                    self.die()
                await trio.sleep(self.random.random() * DOWN_S)

    async def _live(self) -> None:
        async with opened(self._config, now_ms, self._disk) as opened_broker:
            broker = opened_broker.broker
            await broker.cluster.register({"PLAINTEXT": ("127.0.0.1", 1)}, {"PLAINTEXT": "PLAINTEXT"})
            if self._died.is_set():
                return
            async with trio.open_nursery() as nursery:
                self.broker = broker
                nursery.start_soon(self._run_task, broker.groups.run)
                nursery.start_soon(self._run_task, broker.transactions.run)
                await self._died.wait()
                nursery.cancel_scope.cancel()

    def die(self) -> None:
        """The process is gone. What it does from now on, on its way out, is seen by nobody."""
        dead = self._disk
        loses_power = self._power_fails and self.random.random() < 0.5
        self._disk = dead.power_cut(self.random) if loses_power else copy.deepcopy(dead.killed())
        self._tell("the power fails" if loses_power else "killed")
        dead.is_dead = False
        dead.disarm()
        self.life += 1
        self.broker = None
        self._died.set()

    async def _run_task(self, task: Callable[[], Any]) -> None:
        try:
            await task()
        except* Crash:
            self.die()

    def _run_in_thread(self, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Stands in for kpy.replica.disk_threads."""
        assert self._nursery is not None
        self._nursery.start_soon(self._thread, self.life, job, done)

    async def _thread(self, life: int, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        await trio.sleep(self.random.random() * SYNC_S)
        if life != self.life:
            return
        try:
            job()
            done(None)
        except Crash:
            self.die()

    def _tell(self, what: str) -> None:
        self.trace.append(f"{trio.current_time():7.3f} {what}")

    async def ask(self, handler: Callable[..., Any], request: Any, version: int) -> Any:
        """A request's answer. None when the broker is away, or dies before it has answered."""
        answer = await self._answer(handler, request, version)
        self._tell(f"{request} -> {answer or 'nothing'}")
        return answer

    async def _answer(self, handler: Callable[..., Any], request: Any, version: int) -> Any:
        await trio.sleep(self.random.random() * RETRY_S)
        broker = self.broker
        if broker is None:
            return None
        client = Client("127.0.0.1", "PLAINTEXT")
        client.version = version
        try:
            answer = handler(request, client, broker)
            if isinstance(answer, Coroutine):
                answer = await answer
        except Crash:
            self.die()
            return None
        if not isinstance(answer, Pending):
            return answer if self.broker is broker else None
        answered: list[Any] = []
        answer.deliver_to(answered.append)
        for _ in range(MAX_RETRIES):
            if self.broker is not broker or answered:
                break
            await trio.sleep(RETRY_S)
        return answered[0] if answered else None
