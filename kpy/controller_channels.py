"""How the controller tells the other brokers: a task and a connection for each (Kafka class ControllerChannelManager).

What is to be told is decided in kpy/controller/broker_requests.py. Here it is sent, one batch after the other, until a
broker is gone or this one is not the controller any more. A batch is made when there is a connection to send it on, for
with thousands of partitions that takes a while, and one that fails is made anew from what is to be told by then;
PeerChannel pauses before it connects again.
"""

import logging
from collections.abc import Callable
from typing import Any

import trio

from kpy.controller.broker_requests import BrokerRequests
from kpy.log_repetition import Repetition
from kpy.peers import PeerChannel, PeerError

log = logging.getLogger("kpy.controller")


class ControllerChannels:
    """`requests` is asked for what is to be told: None while another broker is the controller."""

    def __init__(
        self,
        requests: Callable[[], BrokerRequests | None],
        decide_anew: Callable[[], None],
        client_id: str,
        timeout_ms: int,
    ) -> None:
        self._requests = requests
        self._decide_anew = decide_anew
        self._client_id = client_id
        self._timeout_ms = timeout_ms
        self._channels: dict[int, _Channel] = {}
        self._work = trio.Event()

    def wake(self) -> None:
        """There may be something to tell, or other brokers to tell it to."""
        self._work.set()

    async def run(self) -> None:
        """Tells until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._work = trio.Event()
                self._look_after_channels(nursery)
                await self._work.wait()

    def _look_after_channels(self, nursery: trio.Nursery) -> None:
        requests = self._requests()
        brokers = {} if requests is None else requests.brokers
        for broker_id, channel in list(self._channels.items()):
            if channel.requests is requests and brokers.get(broker_id) == channel.broker_epoch:
                channel.work.set()
            else:
                channel.scope.cancel()
                del self._channels[broker_id]
        for broker_id, epoch in brokers.items():
            if requests is not None and broker_id not in self._channels:
                channel = _Channel(requests, broker_id, epoch, self._decide_anew)
                self._channels[broker_id] = channel
                peer = PeerChannel(channel.connect, self._client_id, self._timeout_ms)
                nursery.start_soon(channel.run, peer)


class _Channel:
    """To one broker, in one of its lives and in one term of office."""

    def __init__(
        self, requests: BrokerRequests, broker_id: int, broker_epoch: int, decide_anew: Callable[[], None]
    ) -> None:
        self.requests = requests
        self.broker_epoch = broker_epoch
        self.scope = trio.CancelScope()
        self.work = trio.Event()
        self._broker_id = broker_id
        self._decide_anew = decide_anew
        self._problem = Repetition(log, logging.WARNING)

    async def connect(self) -> trio.SocketStream:
        address = self.requests.address(self._broker_id)
        if address is None:
            raise PeerError(f"broker {self._broker_id} has no listener for other brokers")
        return await trio.open_tcp_stream(*address)

    async def run(self, peer: PeerChannel) -> None:
        try:
            with self.scope:
                while True:
                    self.work = trio.Event()
                    if not await self._tell(peer):
                        await self.work.wait()
        finally:
            peer.close()

    async def _tell(self, peer: PeerChannel) -> bool:
        """Whether there may be more to tell at once."""
        if not self.requests.has_news(self._broker_id):
            return False
        try:
            await peer.open()
        except PeerError as error:
            self._not_told(error)
            return True
        batch = self.requests.take(self._broker_id)
        if batch is None:
            return False
        try:
            for (key, version), message in batch.requests:
                response: Any = await peer.ask(key, message, version)
                if self.requests.answered(batch, response):
                    self._decide_anew()
        except PeerError as error:
            self._not_told(error)
            self.requests.failed(batch)
        else:
            if self._problem.over():
                log.info("broker %d has been told who leads", self._broker_id)
        return True

    def _not_told(self, error: PeerError) -> None:
        self._problem.say(f"broker {self._broker_id} cannot be told who leads: {error}")
