"""Old records are read into the page cache by threads, a few at a time for each data directory, before they are sent.

A disk serves few reads at once well, and a consumer of old records asks again as soon as it has got some: so a data
directory has AT_ONCE threads at most, and who comes later waits behind in order. Those who read what is in the page
cache never come by here (storage/cold_read.py).
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from kpy.replica.group_commit import RunInThread
from kpy.storage.cold_read import ColdRead

AT_ONCE = 4


class ColdReads:
    """The reads that are under way or wait, by data directory."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        self._run_in_thread = run_in_thread
        self._waiting: dict[str, deque[tuple[ColdRead, Callable[[], None]]]] = {}
        self._running: dict[str, int] = {}

    def read_in(self, reads: Sequence[ColdRead], done: Callable[[], None]) -> None:
        """Call `done` when all of `reads` have been made. One that fails has taken its log offline by then."""
        left = len(reads)

        def one_is_done() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done()

        for read in reads:
            directory = read.log.data_dir
            self._waiting.setdefault(directory, deque()).append((read, one_is_done))
            self._begin(directory)

    def _begin(self, directory: str) -> None:
        waiting = self._waiting[directory]
        while waiting and self._running.get(directory, 0) < AT_ONCE:
            read, done = waiting.popleft()
            self._running[directory] = self._running.get(directory, 0) + 1
            self._run_in_thread(read.run, partial(self._end, directory, read, done))

    def _end(self, directory: str, read: ColdRead, done: Callable[[], None], error: OSError | None) -> None:
        self._running[directory] -= 1
        self._begin(directory)
        if error is not None:
            read.log.disk.on_error(error)
        done()
