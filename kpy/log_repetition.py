"""Log lines that would repeat as long as something is wrong: said once, then once a minute with the number."""

import logging
import time
from collections.abc import Callable

REMIND_S = 60.0
MAX_TEXTS = 100
"""Different lines between two calls of `over`; what comes beyond is not said."""


class Repetition:
    """One thing that is tried again and again. `say` is told of each failure, `over` when it has succeeded."""

    def __init__(self, log: logging.Logger, level: int, clock: Callable[[], float] | None = None) -> None:
        self._log = log
        self._level = level
        self._clock = clock or time.monotonic
        self._said: dict[str, tuple[float, int]] = {}
        """When each line was said last, and how often it was not since."""

    def say(self, text: str) -> None:
        now = self._clock()
        said = self._said.get(text)
        if said is None:
            if len(self._said) < MAX_TEXTS:
                self._said[text] = now, 0
                self._log.log(self._level, "%s", text)
            return
        last, unsaid = said
        if now - last < REMIND_S:
            self._said[text] = last, unsaid + 1
            return
        self._said[text] = now, 0
        self._log.log(self._level, "%s (%d times in %d s)", text, unsaid + 1, now - last)

    def over(self) -> bool:
        """Whether anything had been said: the next failure is news again."""
        if not self._said:
            return False
        self._said.clear()
        return True
