"""Log lines that would repeat as long as something is wrong: said once, then once a minute with the number."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

REMIND_S = 60.0
"""A line that has not come for as long is forgotten: it is news again, and makes room for others."""
MAX_TEXTS = 100
"""Different lines that are known at a time; what comes beyond is not said."""


@dataclass(slots=True)
class _Line:
    said_s: float
    came_s: float
    """The last time, said or not."""
    unsaid: int = 0
    """How often it came since it was said."""


class Repetition:
    """Things that are tried again and again. `say` is told of each failure, `over` when all goes well again.

    Where only one of many things goes well again nobody needs to say so: its line is forgotten in time.
    """

    def __init__(self, log: logging.Logger, level: int, clock: Callable[[], float] | None = None) -> None:
        self._log = log
        self._level = level
        self._clock = clock or time.monotonic
        self._lines: dict[str, _Line] = {}

    def say(self, text: str) -> None:
        now = self._clock()
        self._lines = {known: line for known, line in self._lines.items() if now - line.came_s < REMIND_S}
        line = self._lines.get(text)
        if line is None:
            if len(self._lines) < MAX_TEXTS:
                self._lines[text] = _Line(now, now)
                self._log.log(self._level, "%s", text)
            return
        line.came_s = now
        line.unsaid += 1
        if now - line.said_s >= REMIND_S:
            self._log.log(self._level, "%s (%d times in %d s)", text, line.unsaid, now - line.said_s)
            line.said_s, line.unsaid = now, 0

    def over(self) -> bool:
        """Whether anything had been said: the next failure is news again."""
        if not self._lines:
            return False
        self._lines.clear()
        return True
