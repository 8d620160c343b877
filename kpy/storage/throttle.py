"""A ceiling on the bytes a second of background disk work (Kafka class Throttler)."""

from collections.abc import Callable

UNLIMITED_BYTES_PER_SECOND = 1.7e308


class Throttle:
    """`delay_s` is told of bytes that have been read or written, and says how long to pause for them."""

    def __init__(self, bytes_per_second: float, clock: Callable[[], float]) -> None:
        self.bytes_per_second = bytes_per_second
        self._clock = clock
        self._paid_until = 0.0

    def delay_s(self, size_bytes: float) -> float:
        """Time that was not used is not saved up, so a pause in the work does not lead to a burst after it."""
        now = self._clock()
        self._paid_until = max(self._paid_until, now) + size_bytes / max(self.bytes_per_second, 1.0)
        return self._paid_until - now
