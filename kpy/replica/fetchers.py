"""The fetchers: tasks that bring the records of partitions which other brokers lead (Kafka's ReplicaFetcherManager).

For each leader there are up to num.replica.fetchers fetchers, each with a connection of its own; a partition always
goes to the same one. A fetcher has one request in flight. What it asks and what an answer means is decided by
follower.py; here the answer's steps are carried out on the logs, synchronously, before the next request. That is done
in a round of the poller, as the requests of clients are: a fetcher's task only runs where something must be waited for.
"""

import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

import trio

from kpy.errors import ApiError, ErrorCode
from kpy.java_hash import string_hash, without_sign
from kpy.log_repetition import Repetition
from kpy.peers import PeerError
from kpy.replica.follower import Append, AskOffsets, Following, Key, Limits, Step, Truncate
from kpy.replica.membership import Membership
from kpy.replica.partition import Partition
from kpy.replica.throttles import Throttles
from kpy.wire.fetch import FetchRequest, FetchResponse
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic
from kpy.wire.primitives import Message

log = logging.getLogger("kpy.replica")

FETCH, LIST_OFFSETS = 1, 2
FETCH_VERSION, LIST_OFFSETS_VERSION = 17, 9
LATEST, EARLIEST = -1, -2


class Peer(Protocol):
    """A connection to a leader. Both raise PeerError (kpy/peers.py)."""

    async def ask(self, key: int, request: Message, version: int) -> Any: ...
    async def converse(
        self, key: int, request: Message, version: int, reply: Callable[[Any], Message | None]
    ) -> None: ...
    def close(self) -> None: ...


OpenPeer = Callable[[int, str], Peer]
"""Called with the leader's broker id and a client id."""


class Fetchers:
    """All fetchers of this broker. They work while `run` does."""

    def __init__(
        self,
        broker_id: int,
        membership: Membership,
        open_peer: OpenPeer,
        *,
        now_ms: Callable[[], int],
        fetchers_a_leader: int = 1,
        limits: Limits | None = None,
        throttles: Throttles | None = None,
    ) -> None:
        self._broker_id = broker_id
        self._membership = membership
        self._open_peer = open_peer
        self._now_ms = now_ms
        self._fetchers_a_leader = fetchers_a_leader
        self._limits = limits or Limits()
        self._throttles = throttles or Throttles(broker_id)
        self._fetchers: dict[tuple[int, int], _Fetcher] = {}
        self._followed: dict[Key, _Fetcher] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Fetches until cancelled."""
        async with trio.open_nursery() as self._nursery:
            for fetcher in self._fetchers.values():
                self._nursery.start_soon(fetcher.run)
            await trio.sleep_forever()

    def follow(self, partition: Partition) -> None:
        """Fetches from the partition's leader from now on, in its leader epoch."""
        self.leave(partition)
        key = partition.topic, partition.partition
        number = fetcher_of(*key, self._fetchers_a_leader)
        fetcher = self._fetchers.get((partition.leader, number))
        if fetcher is None:
            client_id = f"broker-{self._broker_id}-fetcher-{number}"
            following = Following(
                self._broker_id, self._membership.broker_epoch, self._limits, self._throttles.follower
            )
            peer = self._open_peer(partition.leader, client_id)
            fetcher = _Fetcher(peer, partition.leader, following, self._throttles, self._now_ms)
            self._fetchers[partition.leader, number] = fetcher
            if self._nursery is not None:
                self._nursery.start_soon(fetcher.run)
        self._followed[key] = fetcher
        fetcher.add(key, partition)

    def leave(self, partition: Partition) -> None:
        """Fetches the partition no more."""
        key = partition.topic, partition.partition
        fetcher = self._followed.pop(key, None)
        if fetcher is None:
            return
        fetcher.remove(key)
        if fetcher.is_idle:
            fetcher.stop()
            self._fetchers = {name: each for name, each in self._fetchers.items() if each is not fetcher}


class _Fetcher:
    def __init__(
        self, peer: Peer, leader: int, following: Following, throttles: Throttles, now_ms: Callable[[], int]
    ) -> None:
        self._peer = peer
        self._leader = leader
        self._following = following
        self._throttles = throttles
        self._now_ms = now_ms
        self._partitions: dict[Key, Partition] = {}
        self._questions: list[AskOffsets] = []
        self._unflushed: list[Partition] = []
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._problem = Repetition(log, logging.WARNING)
        self._refused = Repetition(log, logging.WARNING)
        """Of single partitions, which try again while the others go on."""

    @property
    def is_idle(self) -> bool:
        return not self._partitions

    def add(self, key: Key, partition: Partition) -> None:
        self._partitions[key] = partition
        for step in self._following.follow(key, partition.log, partition.leader_epoch):
            self._carry_out(step)
        self._changed.set()

    def remove(self, key: Key) -> None:
        self._partitions.pop(key, None)
        self._following.leave(key)
        self._changed.set()

    def stop(self) -> None:
        self._scope.cancel()

    async def run(self) -> None:
        """Fetches until stopped."""
        with self._scope:
            try:
                while True:
                    await self._fetch_once()
            finally:
                self._peer.close()

    async def _fetch_once(self) -> None:
        request = self._following.next_request(_clock_ms())
        if request is None:
            ready_ms = self._following.next_ready_ms(_clock_ms())
            self._changed = trio.Event()
            with trio.move_on_after(math.inf if ready_ms is None else (ready_ms - _clock_ms()) / 1000):
                await self._changed.wait()
            return
        try:
            await self._peer.converse(FETCH, request, FETCH_VERSION, self._answered)
        except PeerError as error:
            self._problem.say(f"fetching from broker {self._leader} failed: {error}")
            self._following.disconnected(_clock_ms())
            return
        questions, self._questions = self._questions, []
        for question in questions:
            await self._ask_offsets(question)
        await self._flushed()

    def _answered(self, response: FetchResponse) -> FetchRequest | None:
        """Does what an answer says. The next request; None if something must be waited for before there is one."""
        if self._problem.over():
            log.info("fetching from broker %d works again", self._leader)
        if response.error_code:
            log.info("broker %d ends the fetch session: %s", self._leader, response.error_code)
        for step in self._following.answered(response, _clock_ms()):
            if isinstance(step, AskOffsets):
                self._questions.append(step)
            else:
                self._carry_out(step)
        return None if self._questions or self._unflushed else self._following.next_request(_clock_ms())

    async def _flushed(self) -> None:
        """Waits until what must be on disk is: the next request tells the leader that this broker has it."""
        unflushed, self._unflushed = self._unflushed, []
        for partition in unflushed:
            if partition.unflushed:
                await _until_flushed(partition)

    def _carry_out(self, step: Step) -> None:
        """Does to the log what a step says; a partition that cannot be served now rests."""
        partition = self._partitions.get(step.key)
        if partition is None:
            return
        try:
            if isinstance(step, Append):
                partition.append_fetched(step.records, step.high_watermark, step.log_start_offset, self._now_ms())
                if partition.unflushed:
                    self._unflushed.append(partition)
                if step.records is not None:
                    self._throttles.taken(partition, len(step.records))
            elif isinstance(step, Truncate):
                self._truncate(partition, step.offset)
            elif not isinstance(step, AskOffsets):
                log.warning("%s-%d: begins anew at offset %d, where the leader's log begins", *step.key, step.offset)
                partition.log.truncate_fully_and_start_at(step.offset)
        except ApiError as error:
            self._refused.say(f"{_name(step.key)}: cannot take over what broker {self._leader} has: {error}")
            self._following.rest(step.key, _clock_ms())

    def _truncate(self, partition: Partition, offset: int) -> None:
        held = partition.log
        if offset < held.high_watermark:
            log.warning(
                "%s-%d: is cut to offset %d, below its high watermark %d",
                partition.topic,
                partition.partition,
                offset,
                held.high_watermark,
            )
        held.truncate_to(offset)

    async def _ask_offsets(self, step: AskOffsets) -> None:
        """Where the leader's log ends and begins: first the end, as Apache Kafka asks."""
        topic, index = step.key
        found: list[int] = []
        for timestamp in (LATEST, EARLIEST):
            wanted = ListOffsetsPartition(index, step.leader_epoch, timestamp)
            request = ListOffsetsRequest(self._following.broker_id, 0, [ListOffsetsTopic(topic, [wanted])])
            try:
                response: ListOffsetsResponse = await self._peer.ask(LIST_OFFSETS, request, LIST_OFFSETS_VERSION)
                answer = response.topics[0].partitions[0]
            except (PeerError, IndexError) as error:
                self._refused.say(f"broker {self._leader} does not say where {_name(step.key)} ends: {error}")
                self._following.rest(step.key, _clock_ms())
                return
            if answer.error_code:
                self._following.offsets_refused(step.key, ErrorCode(answer.error_code), _clock_ms())
                return
            found.append(answer.offset)
        end_offset, start_offset = found
        for each in self._following.offsets(step.key, step.leader_epoch, start_offset, end_offset):
            self._carry_out(each)


def fetcher_of(topic: str, partition: int, fetchers: int) -> int:
    """Which of a leader's fetchers a partition goes to (AbstractFetcherManager.getFetcherId)."""
    return without_sign((31 * string_hash(topic) + partition) & 0xFFFFFFFF) % fetchers


async def _until_flushed(partition: Partition) -> None:
    """Something of it is `unflushed`."""
    flushed = trio.Event()
    partition.when_flushed(lambda _: flushed.set())
    await flushed.wait()


def _name(key: Key) -> str:
    return f"{key[0]}-{key[1]}"


def _clock_ms() -> int:
    return int(trio.current_time() * 1000)
