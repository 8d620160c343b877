"""Going round many things slowly: a few of them each time, all of them once in a while.

What changes is looked at when it changes, by whoever is told of it. Some changes nobody tells of; the rotation finds
them, at a cost that is spread evenly, where looking at everything each time would grow with the number of partitions.
"""

from itertools import islice
from typing import TypeVar

LOOK_OVER_MS = 5_000
"""In which partitions are looked at once that nobody tells of, by leaders and by followers."""

K = TypeVar("K")
V = TypeVar("V")


class Rotation:
    """Goes once round a dict in about `round_ms`, however often it is asked."""

    def __init__(self, round_ms: int) -> None:
        self._round_ms = round_ms
        self._due_since_ms = -1

    def next(self, ring: dict[K, V], now_ms: int) -> list[K]:
        """The keys whose turn has come since the last call; they move to the end of `ring`."""
        if not 0 <= self._due_since_ms <= now_ms:
            self._due_since_ms = now_ms  # The first time, or the clock was set back.
        count = len(ring) * (now_ms - self._due_since_ms) // self._round_ms
        if count == 0:
            return []
        self._due_since_ms = now_ms if count >= len(ring) else self._due_since_ms + count * self._round_ms // len(ring)
        keys = list(islice(ring, count))
        for key in keys:
            ring[key] = ring.pop(key)
        return keys
