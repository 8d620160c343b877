"""Disk work that can take long, cut in two: what a worker thread may do, and what the logs' thread does afterwards."""

from collections.abc import Callable
from typing import NamedTuple


class DiskJob(NamedTuple):
    """`run` may run in a worker thread, and raises OSError when the disk under `path` fails; then the data directory
    goes offline. Else `done` is called in the thread that owns the logs.
    """

    path: str
    run: Callable[[], None]
    done: Callable[[], None]


def nothing() -> None:
    """What is left to do after most jobs."""
