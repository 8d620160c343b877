"""Where fetches wait for data (Kafka's name for it, class DelayedOperationPurgatory).

Produces with acks=all wait here too, for their deadlines only: their partitions know when they are done.

A parked fetch counts down the bytes it still misses. Each append to one of its partitions tells it how many came; at
zero, or at its deadline, or when a partition changes hands, it is finished: `finish` reads once more and answers. So it
is by the first bytes of another segment, to which no read from the one before comes (class DelayedFetch, case F).
Nothing is read while bytes are missing, so a fetch with a large min_bytes does not slow the appends that fill it.

While the poller serves a round of connections, finished fetches are collected and answered after the round: so a
producer's acknowledgement leaves first, and one answer carries all that a burst of requests has appended. Others who
have something to do when a round ends say so with `after_round`.
"""

import heapq
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from kpy.replica.partition import Partition
    from kpy.storage.log import Log

STALE_TIMERS = 64
"""The timer heap is rebuilt when it holds this many entries of finished fetches beyond the live ones."""


class ParkedFetch:
    """One waiting fetch. `finish()` is called exactly once, unless it is forgotten first."""

    __slots__ = ("committed_only", "finish", "missing_bytes", "of_follower", "partitions")

    def __init__(
        self,
        partitions: "Iterable[Partition]",
        missing_bytes: int,
        finish: Callable[[], None],
        *,
        committed_only: bool = False,
        of_follower: bool = False,
    ) -> None:
        self.partitions: list[Partition] | None = list(partitions)
        self.missing_bytes = missing_bytes
        self.committed_only = committed_only
        self.finish = finish
        self.of_follower = of_follower
        """A follower waits for what is appended, a consumer for what is committed."""

    def join(self, partition: "Partition") -> None:
        """Waits for data in one partition more, if it waits still."""
        if self.partitions is not None:
            waiting = partition.waiting_followers if self.of_follower else partition.waiting
            if self not in waiting:
                waiting[self] = None
                self.partitions.append(partition)


class Purgatory:
    """All parked fetches of this broker and their deadlines."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, ParkedFetch]] = []
        self._parked_so_far = 0
        self._live = 0
        self._ready: list[Callable[[], None]] = []
        self._in_round = False
        self._earlier_deadline = trio.Event()

    def __len__(self) -> int:
        return self._live

    def park(self, fetch: ParkedFetch, max_wait_ms: int) -> None:
        """Waits for `fetch.missing_bytes` in its partitions, `max_wait_ms` at most."""
        for partition in fetch.partitions or ():
            waiting = partition.waiting_followers if fetch.of_follower else partition.waiting
            waiting[fetch] = None
        self._live += 1
        self._parked_so_far += 1
        deadline = trio.current_time() + max_wait_ms / 1000
        earliest = self._timers[0][0] if self._timers else math.inf
        heapq.heappush(self._timers, (deadline, self._parked_so_far, fetch))
        if deadline < earliest:
            self._earlier_deadline.set()
        if len(self._timers) > 2 * self._live + STALE_TIMERS:
            self._timers = [timer for timer in self._timers if timer[2].partitions is not None]
            heapq.heapify(self._timers)

    def forget(self, fetch: ParkedFetch) -> None:
        """The client is gone; nothing is answered."""
        if fetch.partitions is not None:
            for partition in fetch.partitions:
                del (partition.waiting_followers if fetch.of_follower else partition.waiting)[fetch]
            fetch.partitions = None
            # Its timer stays in the heap for a while. What it would have answered need not: that is dozens of objects,
            # and as many as that, let go in bursts, make the garbage collector run for nothing.
            fetch.finish = _nothing
            self._live -= 1

    def appended(self, partition: "Partition", start_offset: int, size_bytes: int) -> None:
        """`size_bytes` from an offset on have become readable in `partition`; not for everybody while a transaction
        is open there.
        """
        for fetch in tuple(partition.waiting):
            if fetch.committed_only and partition.last_stable_offset < partition.high_watermark:
                continue
            fetch.missing_bytes -= size_bytes
            if fetch.missing_bytes <= 0 or _is_another_segment(partition.log, start_offset, partition.high_watermark):
                self.release(fetch)

    def decided(self, partition: "Partition") -> None:
        """A transaction has ended in `partition`: what it wrote long before may be readable now."""
        for fetch in tuple(partition.waiting):
            if fetch.committed_only:
                self.release(fetch)

    def appended_for_followers(self, partition: "Partition", start_offset: int, size_bytes: int) -> None:
        """`size_bytes` from an offset on were appended to `partition`, committed or not."""
        log = partition.log
        for fetch in tuple(partition.waiting_followers):
            fetch.missing_bytes -= size_bytes
            if fetch.missing_bytes <= 0 or _is_another_segment(log, start_offset, log.log_end_offset):
                self.release(fetch)

    def release(self, fetch: ParkedFetch) -> None:
        """Ends the wait: answers now, or after the poller's round."""
        if fetch.partitions is None:
            return
        finish = fetch.finish
        self.forget(fetch)
        if self._in_round:
            self._ready.append(finish)
        else:
            finish()

    def after_round(self, finish: Callable[[], None]) -> bool:
        """Whether the poller is in a round, behind which it calls `finish` then."""
        if self._in_round:
            self._ready.append(finish)
        return self._in_round

    def begin_round(self) -> None:
        self._in_round = True

    def end_round(self) -> None:
        self._in_round = False
        while self._ready:
            ready, self._ready = self._ready, []
            for finish in ready:
                finish()

    async def run(self) -> None:
        """Ends the waits whose time is over, until cancelled."""
        while True:
            while self._timers and (self._timers[0][2].partitions is None or self._timers[0][0] <= trio.current_time()):
                self.release(heapq.heappop(self._timers)[2])
            self._earlier_deadline = trio.Event()
            with trio.move_on_at(self._timers[0][0] if self._timers else math.inf):
                await self._earlier_deadline.wait()


def _nothing() -> None:
    return


def _is_another_segment(log: "Log", start_offset: int, end_offset: int) -> bool:
    """Whether what has come in between is in a later segment than what was before it, if anything was."""
    return start_offset > log.log_start_offset and log.ends_in_later_segment(start_offset - 1, end_offset)
