"""Answers of a busy round leave beside the event loop, in a thread of the accelerator that needs no GIL.

On loopback, and wherever the kernel does the receiver's work inside of a send, sending is the dearest single thing that
a small request costs. When many connections are ready at once, the poller opens the sender for the round; channels hand
over what they have to send, and while the thread sends, the loop is at the next requests. What is handed over is
published, which wakes the thread, eight at a time and at the end of the round: to wake it costs as much as a send does,
and if all clients there are had to wait for the end of one round, nothing would be left for the loop to do meanwhile.
Below BUSY_ROUND connections nothing is handed over, so that a lone client's answer leaves at once.

The thread never waits for a socket. What does not go out whole comes back through `on_cut_short`: when the alarm rings,
when the sender is opened next, or when a channel asks, whichever is first. A channel has at most one piece here, of
which it knows the number, and waits for it before it sends anything else or closes its socket; so its bytes keep their
order, and no number of a descriptor changes hands meanwhile. The thread starts with the first busy round.

What lies here is bounded: the ring has 512 places (native_sender.c), each of HANDED_OVER_LIMIT_BYTES at most. Bytes
that are sent are let go when the sender is opened next.
"""

import os
from collections.abc import Callable
from typing import Any

from kpy.native import NATIVE

BUSY_ROUND = 16
"""So many connections that are ready at once make a round busy: two times what is published together, so that the loop
has something to do while the thread wakes and sends."""

HANDED_OVER_LIMIT_BYTES = 16 * 1024
"""More is sent by the loop, so that what lies here and in the ring's places stays small."""

OnCutShort = Callable[[int, memoryview, int], None]
"""Called with a descriptor, the bytes that are left, and why: an errno, or 0 if the socket is full."""


class Sender:
    """Used by the event loop alone. Between `open` and `publish`, `is_open` says that channels may hand over."""

    __slots__ = ("_native", "_on_cut_short", "alarm_fd", "hand_over", "is_open", "wait")

    def __init__(self, on_cut_short: OnCutShort) -> None:
        """`alarm_fd` becomes readable when something has not gone out whole: then `take_back` is due."""
        self._native: Any = NATIVE.Sender()
        self._on_cut_short = on_cut_short
        self.alarm_fd: int = self._native.alarm_fd
        self.is_open = False
        self.hand_over: Callable[[int, bytes], int] = self._native.hand_over
        """The number of what is handed over; 0 if it is not, because the ring is full or there is no thread."""
        self.wait: Callable[[int], bool] = self._native.wait
        """Until what has this number is tried, which no socket delays. Whether `take_back` is due."""

    def open(self) -> None:
        self.take_back()
        self.is_open = True

    def publish(self) -> None:
        self.is_open = False
        self._native.publish()

    def take_back(self) -> None:
        # One at a time, since to tell of one may bring another channel to ask for its own.
        while (found := self._native.take_back()) is not None:
            fd, data, sent, error = found
            self._on_cut_short(fd, memoryview(data)[sent:], error)

    def close(self) -> None:
        """Tries what is left and ends the thread."""
        self._native.close()


def new_sender(on_cut_short: OnCutShort) -> Sender | None:
    """None without the accelerator or eventfd, and where one CPU is all there is: nothing is beside the loop then."""
    return Sender(on_cut_short) if hasattr(NATIVE, "Sender") and len(os.sched_getaffinity(0)) > 1 else None
