"""Asking other brokers about many things: a queue and a connection for each broker, one request in flight.

What is put in while a request is under way goes with the next one. Nothing is asked twice here: who asked is told that
a request was lost, and finds out whom to ask now. A broker that is gone loses its queue (Kafka class
InterBrokerSendThread).
"""

from collections import deque
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from kpy.peers import PeerChannel, PeerError

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Queue(Generic[T]):
    """To one broker."""

    broker_id: int
    waiting: deque[T] = field(default_factory=deque[T])
    work: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class PeerQueues(Generic[T]):
    """`take` takes off a queue what the next request asks for, nothing only when it leaves nothing; `exchange` sends
    that and tells of the answer, or raises PeerError; `lost` tells that there is none.
    """

    def __init__(
        self,
        open_peer: Callable[[int], PeerChannel],
        take: Callable[[deque[T]], list[T]],
        exchange: Callable[[PeerChannel, list[T]], Awaitable[None]],
        lost: Callable[[list[T], str], None],
    ) -> None:
        self._open_peer = open_peer
        self._take = take
        self._exchange = exchange
        self._lost = lost
        self._queues: dict[int, _Queue[T]] = {}
        self._new: list[_Queue[T]] = []
        self._work = trio.Event()

    def put(self, broker_id: int, item: T) -> None:
        """Its answer, or its loss, is told later and never at once."""
        queue = self._queues.get(broker_id)
        if queue is None:
            queue = self._queues[broker_id] = _Queue(broker_id)
            self._new.append(queue)
            self._work.set()
        queue.waiting.append(item)
        queue.work.set()

    def keep(self, alive: Container[int]) -> None:
        """Give up on brokers that are not alive, without waiting for their silence."""
        for broker_id in [each for each in self._queues if each not in alive]:
            self._queues.pop(broker_id).scope.cancel()

    async def run(self) -> None:
        """Asks until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._work = trio.Event()
                new, self._new = self._new, []
                for queue in new:
                    nursery.start_soon(self._serve, queue)
                await self._work.wait()

    async def _serve(self, queue: _Queue[T]) -> None:
        peer = self._open_peer(queue.broker_id)
        in_flight: list[T] = []
        try:
            with queue.scope:
                while True:
                    queue.work = trio.Event()
                    in_flight = self._take(queue.waiting)
                    if in_flight:
                        await self._ask(peer, in_flight)
                    else:
                        await queue.work.wait()
        finally:
            peer.close()
        self._lost([*in_flight, *queue.waiting], f"broker {queue.broker_id} is gone")

    async def _ask(self, peer: PeerChannel, items: list[T]) -> None:
        try:
            await self._exchange(peer, items)
        except PeerError as error:
            self._lost(items, str(error))
