"""Waits for a descriptor in the place of trio's event loop, which took a sixth of what a lone client's requests cost.

A task that waits through trio arms the descriptor in trio's epoll, and the loop goes around: deadlines, events, a
schedule, a system call for each. Where nearly all events are of one descriptor, its task can wait itself while nothing
else is to run: in an epoll that has both the descriptor and trio's epoll in it, until trio's next deadline. Only when
it wakes for one of these does it let the loop go around.

That the loop has an epoll and a heap of deadlines is nothing that trio promises. Where they are not found one waits
through trio, as do all but the first who wait in one loop, and as long as others wait for the loop to be idle.
"""

import math
import select
from typing import Any, Final, Self

import trio

from kpy.native import NATIVE
from kpy.storage.fs import FileRegion

Events = list[tuple[int, int]]
"""Descriptors, and what they are ready for, as an epoll gives them."""

MAX_SECONDS: Final = 3600.0
"""Without a deadline: epoll does not take infinity."""

_send_while_alone: Final[Any] = getattr(NATIVE, "send_while_alone", None)
_is_waited_for: Final = trio.lowlevel.RunVar("kpy.net.trio_loop", default=False)


class _Runnable(trio.abc.Instrument):
    """The tasks that are to run. The loop's own list lacks those that are to run in the present turn of it."""

    def __init__(self) -> None:
        self.tasks: set[trio.lowlevel.Task] = set()
        # Methods of the set, since both are called at each step of each task; trio calls whatever is there.
        self.task_scheduled = self.tasks.add  # pyright: ignore[reportAttributeAccessIssue]
        self.before_task_step = self.tasks.discard  # pyright: ignore[reportAttributeAccessIssue]


class WaitInPlaceOfTrio:
    """Entered by the task that waits for `fd`, again and again."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._runner: Any = None
        self._trio_fd = -1
        self._both: Any = None
        self._runnable = _Runnable()

    async def __aenter__(self) -> Self:
        runner = _seek(trio, "_core", "_run", "GLOBAL_RUN_CONTEXT", "runner")
        trio_epoll = _seek(runner, "io_manager", "_epoll")
        if trio_epoll is None or not hasattr(runner, "deadlines") or _is_waited_for.get():
            return self
        _is_waited_for.set(True)
        self._trio_fd = trio_epoll.fileno()
        self._both = select.epoll()
        self._both.register(self._fd, select.EPOLLIN)
        self._both.register(self._trio_fd, select.EPOLLIN)
        trio.lowlevel.add_instrument(self._runnable)
        # Whatever was to run already has run when this task has had two more turns.
        await trio.lowlevel.cancel_shielded_checkpoint()
        await trio.lowlevel.cancel_shielded_checkpoint()
        self._runner = runner
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner = None
            trio.lowlevel.remove_instrument(self._runnable)
            self._both.close()
            _is_waited_for.set(False)

    async def until_readable(self) -> None:
        """Until the descriptor is readable, or the loop has gone around. It can be cancelled, but is no checkpoint."""
        idle_seconds = self._idle_seconds()
        if idle_seconds <= 0:
            await trio.lowlevel.wait_readable(self._fd)
            return
        ready: list[tuple[int, int]] = self._both.poll(idle_seconds, 2)
        if len(ready) != 1 or ready[0][0] == self._trio_fd:
            await trio.lowlevel.checkpoint()

    def send_while_alone(self, sock_fd: int, region: FileRegion) -> tuple[int, Events]:
        """Sends of a region as a socket takes it, and waits in between, while nothing else is ready in the descriptor,
        which is an epoll: how many bytes are sent, and the events that are to be served now.

        The socket is among them when all is sent, or sending has failed. There are none when it is the loop's turn, or
        only the loop can wait, and without the accelerator.
        """
        send, idle_seconds = _send_while_alone, self._idle_seconds()
        if send is None or idle_seconds <= 0:
            return 0, []
        both_fd, file_fd = self._both.fileno(), region.file.fileno()
        found: tuple[int, Events] = send(
            both_fd, self._fd, sock_fd, file_fd, region.position, region.size, idle_seconds
        )
        return found

    def _idle_seconds(self) -> float:
        """How long the loop has nothing to do but to wait for its own epoll; 0 where it must find that out itself."""
        runner = self._runner
        if runner is None or self._runnable.tasks:
            return 0.0
        if runner.waiting_for_idle or runner.clock_autojump_threshold < math.inf:
            return 0.0
        if trio.current_effective_deadline() == -math.inf:
            return 0.0  # This task is cancelled already, and only a checkpoint tells it.
        return min(runner.clock.deadline_to_sleep_time(runner.deadlines.next_deadline()), MAX_SECONDS)


def _seek(found: Any, *names: str) -> Any:
    for name in names:
        found = getattr(found, name, None)
    return found
