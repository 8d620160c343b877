"""A ceiling on the bytes a second of replication (KIP-73; Kafka classes ReplicationQuotaManager and SimpleRate).

Bytes are counted when they have been moved, and whoever moves some asks first whether the quota is exceeded, so one
piece of work may go over it, and is paid back by a pause. The rate is that of the last `window_count` samples of
`window_size_ms`, since the first byte in them; of one sample's time at least, or the first byte would be too fast
already. A sample is forgotten when nothing was counted in it for the time of all samples.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

UNLIMITED_BYTES_PER_SECOND: Final = 2**63 - 1

ThrottledReplicas = frozenset[tuple[int, int]]
"""Replicas of one topic, each as partition and broker id."""
ALL_REPLICAS: Final[ThrottledReplicas] = frozenset({(-1, -1)})
NO_REPLICAS: Final[ThrottledReplicas] = frozenset()


def parse_throttled_replicas(texts: Iterable[str]) -> ThrottledReplicas:
    """The value of a topic's leader.replication.throttled.replicas, or follower's: partition:broker,... or *."""
    items = [text.split(":") for text in texts if text]
    if items == [["*"]]:
        return ALL_REPLICAS
    return frozenset((int(partition), int(broker_id)) for partition, broker_id in items)


def is_throttled(replicas: ThrottledReplicas, partition: int, broker_id: int) -> bool:
    """Whether that broker's replica of a partition is among those of a topic that are throttled."""
    return bool(replicas) and (replicas == ALL_REPLICAS or (partition, broker_id) in replicas)


class _Sample:
    """The bytes that were counted from `start_ms` to `last_ms`."""

    __slots__ = ("last_ms", "size_bytes", "start_ms")

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self.last_ms = start_ms
        self.size_bytes = 0


class ReplicationQuota:
    """`bytes_per_second` may change at any time. Times are milliseconds of any clock that does not go back."""

    def __init__(self, window_count: int = 11, window_size_ms: int = 1_000) -> None:
        self.bytes_per_second = UNLIMITED_BYTES_PER_SECOND
        self._window_size_ms = window_size_ms
        self._window_ms = window_count * window_size_ms
        self._samples: deque[_Sample] = deque()
        """The oldest first. Each begins a sample's time after the one before, so there are never more than
        `window_count` + 1.
        """
        self._size_bytes = 0

    def record(self, size_bytes: int, now_ms: int) -> None:
        """Counts bytes that have been moved."""
        self._forget(now_ms)
        if not self._samples or now_ms - self._samples[-1].start_ms >= self._window_size_ms:
            self._samples.append(_Sample(now_ms))
        newest = self._samples[-1]
        newest.last_ms = now_ms
        newest.size_bytes += size_bytes
        self._size_bytes += size_bytes

    def exceeded_for_ms(self, now_ms: int) -> int:
        """How long the quota is exceeded for, at least; 0 if it is not."""
        self._forget(now_ms)
        if not self._samples:
            return 0
        oldest = self._samples[0]
        elapsed_ms = max(now_ms - oldest.start_ms, self._window_size_ms)
        if 1000 * self._size_bytes <= self.bytes_per_second * elapsed_ms:
            return 0
        forgotten_in_ms = oldest.last_ms + self._window_ms - now_ms
        if self.bytes_per_second == 0:
            return forgotten_in_ms
        needed_ms = -(-1000 * self._size_bytes // self.bytes_per_second)
        return min(forgotten_in_ms, oldest.start_ms + needed_ms - now_ms)

    def _forget(self, now_ms: int) -> None:
        while self._samples and now_ms - self._samples[0].last_ms >= self._window_ms:
            self._size_bytes -= self._samples.popleft().size_bytes
