"""An answer that comes later.

A request that must wait (a fetch without data, a join in a rebalance) is answered with a `Pending`. Its owner
completes it once, its connection abandons it once if the client goes away first; whichever comes second does nothing.
It is a plain object and not a task, because one parks per waiting consumer and one completes per record batch of a
tailing one.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


class Pending(Generic[T]):
    """Completed with a value by `complete`, or given up by `abandon`. The receiver is set before either happens."""

    __slots__ = ("_convert", "_deliver", "done", "may_be_overtaken", "on_abandon")

    def __init__(self, on_abandon: Callable[[], None] | None = None, *, may_be_overtaken: bool = False) -> None:
        self.done = False
        self.may_be_overtaken = may_be_overtaken
        """Whether the connection may take up the next request of the same API meanwhile. Its answer still leaves after
        this one.
        """
        self.on_abandon = on_abandon
        self._convert: Callable[[T], Any] | None = None
        self._deliver: Callable[[Any], None] | None = None

    def deliver_to(self, receiver: Callable[[T], None]) -> None:
        """Says who gets the value. Called by whoever got this object as an answer, before anything else can run."""
        self._deliver = receiver

    def convert(self, into: Callable[[T], U]) -> "Pending[U]":
        """The same wait, of what `into` makes of the value. Called at most once, before `deliver_to`."""
        self._convert = into
        return cast("Pending[U]", self)

    def complete(self, value: T) -> None:
        """Hands the value over. After `abandon`, or a second time, it does nothing."""
        convert, deliver = self._convert, self._deliver
        if self._finish() and deliver is not None:
            deliver(value if convert is None else convert(value))

    def abandon(self) -> None:
        """The client is gone: the owner is told, so that it can forget the wait."""
        told = self.on_abandon
        if self._finish() and told is not None:
            told()

    def _finish(self) -> bool:
        was_open = not self.done
        self.done = True
        self.on_abandon = self._convert = self._deliver = None
        return was_open
