"""Disk work that may take long is done in threads; what came of it is told in the thread that serves clients."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from outcome import Outcome


def run_in_thread(job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    """Run `job` in one of trio's threads, then `done` in trio's own, with the error if the disk failed.

    Returns at once and needs no task, so that a handler, which is synchronous, can begin what it will not wait for. A
    job that ends after the broker has ended is told to nobody. The caller bounds how many run.
    """
    token = trio.lowlevel.current_trio_token()

    def run() -> OSError | None:
        try:
            job()
        except OSError as error:
            return error
        return None

    def tell(result: "Outcome[OSError | None]") -> None:
        done(result.unwrap())

    def deliver(result: "Outcome[OSError | None]") -> None:
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(tell, result)

    trio.lowlevel.start_thread_soon(run, deliver)
