"""Whether C code gives back the memory that it takes."""

import gc
import tracemalloc
from collections.abc import Callable

ROUNDS = 5


def grown_bytes(work: Callable[[], None]) -> int:
    """What ROUNDS of work leave allocated, once the first two have made all that is kept."""
    work()
    tracemalloc.start()
    work()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(ROUNDS):
        work()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown
