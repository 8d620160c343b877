"""Keeps free memory warm while a work needs it, so that what is measured is the broker and not the hypervisor.

A virtual machine with free page reporting gives free pages back to its host about two seconds after they were freed.
The next one to write to such a page waits for the host: here 2.1 ms a MB, instead of 0.2 for a page that the machine
still has. A produce row would then tell who came first after a pause, and the slower broker would pay more.

So a reserve of files is written before a work, which makes the machine own that many pages, and is deleted piece by
piece as free memory shrinks: what is allocated meanwhile, for the log or by a client, comes from pages just freed.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

PIECE_MB = 32
AHEAD_MB = 160
"""So much is free from the start; a broker and its client cannot use it up between two looks."""
LOOK_INTERVAL_S = 0.01


@contextmanager
def warm_memory(directory: Path, megabytes: int) -> Generator[None]:
    """While this is entered, the next `megabytes` (10^6 bytes) that anybody allocates are warm."""
    pieces = [directory / f"reserve-{number}" for number in range((megabytes + AHEAD_MB) // PIECE_MB)]
    chunk = bytes(1_000_000)
    for piece in pieces:
        with piece.open("wb", buffering=0) as file:
            for _ in range(PIECE_MB):
                file.write(chunk)
    done = threading.Event()
    keeper = threading.Thread(target=_release, args=(pieces, _free_mb(), done))
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        for piece in pieces:
            piece.unlink()


def _release(pieces: list[Path], free_at_start_mb: float, done: threading.Event) -> None:
    """Deletes pieces, and takes them off the list, so that more is free than was at the start."""
    while pieces:
        while pieces and _free_mb() < free_at_start_mb + AHEAD_MB:
            pieces.pop().unlink()
        if done.wait(LOOK_INTERVAL_S):
            return


def _free_mb() -> float:
    with open("/proc/meminfo") as file:
        free_kb = next(line for line in file if line.startswith("MemFree:")).split()[1]
    return int(free_kb) * 1024 / 1e6
