"""Deadlines by name, cheap to push back: a heartbeat moves its member's deadline without touching the heap.

The heap holds for each key one entry that is never later than the key's deadline. An entry that comes up too early is
put back at the deadline the key has by then, so a member that heartbeats every 3 s costs one heap operation per
session timeout.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

STALE_ENTRIES_KEPT = 64
"""How many entries of cancelled deadlines the heap may hold beyond one for each live key before it is rebuilt."""


class Timers(Generic[K]):
    """Each key has at most one deadline. Keys that are due come out in the order of their deadlines."""

    __slots__ = ("_deadlines", "_heap", "_sequence")

    def __init__(self) -> None:
        self._deadlines: dict[K, tuple[int, int]] = {}
        """key -> (its deadline, the deadline under which it lies in the heap)."""
        self._heap: list[tuple[int, int, K]] = []
        self._sequence = 0
        """Breaks ties in the order of arming, so that the same events always lead to the same effects."""

    def arm(self, key: K, deadline_ms: int) -> None:
        """Set or move the deadline of `key`."""
        armed = self._deadlines.get(key)
        if armed is not None and armed[1] <= deadline_ms:
            self._deadlines[key] = (deadline_ms, armed[1])
            return
        self._deadlines[key] = (deadline_ms, deadline_ms)
        self._sequence += 1
        heappush(self._heap, (deadline_ms, self._sequence, key))
        if len(self._heap) > 2 * len(self._deadlines) + STALE_ENTRIES_KEPT:
            self._drop_stale_entries()

    def cancel(self, key: K) -> None:
        self._deadlines.pop(key, None)

    def deadline_ms(self, key: K) -> int | None:
        armed = self._deadlines.get(key)
        return armed[0] if armed is not None else None

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline of all keys, or None when nothing is armed."""
        heap = self._heap
        while heap:
            lies_at_ms, _, key = heap[0]
            armed = self._deadlines.get(key)
            if armed is None or armed[1] != lies_at_ms:
                # Cancelled, or armed again for an earlier time, where another entry lies.
                heappop(heap)
            elif armed[0] > lies_at_ms:
                self._deadlines[key] = (armed[0], armed[0])
                self._sequence += 1
                heapreplace(heap, (armed[0], self._sequence, key))
            else:
                return lies_at_ms
        return None

    def pop_due(self, now_ms: int) -> K | None:
        """Take out the key whose deadline is the earliest at or before `now_ms`, or None when nothing is due."""
        deadline_ms = self.next_deadline_ms()
        if deadline_ms is None or deadline_ms > now_ms:
            return None
        key = heappop(self._heap)[2]
        del self._deadlines[key]
        return key

    def _drop_stale_entries(self) -> None:
        live: dict[K, tuple[int, int, K]] = {}
        for entry in self._heap:
            armed = self._deadlines.get(entry[2])
            if armed is not None and armed[1] == entry[0]:
                live[entry[2]] = entry
        self._heap = list(live.values())
        heapify(self._heap)
