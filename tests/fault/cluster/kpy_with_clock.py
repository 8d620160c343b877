"""kpy with a wall clock that a file moves: `python -m tests.fault.cluster.kpy_with_clock <file> start ...`.

The file says how far the clock is off, as libfaketime's do (`+3600s`), and is looked at once a second. libfaketime
itself makes time.sleep fail with EINVAL, since it moves the absolute times of clock_nanosleep although it is told to
leave the monotonic clock alone.
"""

import sys
import time
from pathlib import Path

LOOK_AGAIN_S = 1.0


class MovedClock:
    """time.time and time.time_ns, away from the time by what the file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset_s = 0
        self._looked = float("-inf")
        self._time, self._time_ns = time.time, time.time_ns

    def time(self) -> float:
        return self._time() + self._offset()

    def time_ns(self) -> int:
        return self._time_ns() + self._offset() * 1_000_000_000

    def _offset(self) -> int:
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN_S:
            self._looked = now
            self._offset_s = int(self._path.read_text().rstrip("s\n"))
        return self._offset_s


if __name__ == "__main__":
    clock = MovedClock(Path(sys.argv[1]))
    # Before kpy and what it uses have taken the functions that they call.
    time.time, time.time_ns = clock.time, clock.time_ns
    from kpy.__main__ import main

    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
