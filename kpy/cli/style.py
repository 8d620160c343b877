"""How things look on a terminal: colours, and values as text that cannot play with it."""

import os
from datetime import UTC, datetime
from typing import Final, TextIO

SHOWN_BYTES: Final = 24
"""How much of a field of bytes is shown."""


class Style:
    """Colours, or none."""

    def __init__(self, *, in_colour: bool) -> None:
        self._in_colour = in_colour

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._in_colour and text else text

    def title(self, text: str) -> str:
        return self._paint("1", text)

    def request(self, text: str) -> str:
        return self._paint("1;34", text)

    def response(self, text: str) -> str:
        return self._paint("1;35", text)

    def field(self, text: str) -> str:
        return self._paint("36", text)

    def text(self, text: str) -> str:
        return self._paint("32", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def problem(self, text: str) -> str:
        return self._paint("1;31", text)


def wants_colour(choice: str, stream: TextIO) -> bool:
    """What --color means: `auto` is for terminals, unless NO_COLOR is set (no-color.org)."""
    if choice != "auto":
        return choice == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def time_text(timestamp_ms: int) -> str:
    if timestamp_ms == -1:
        return "none"
    try:
        time = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(timestamp_ms)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """The text without anything that a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def is_text(text: str) -> bool:
    """Whether there is nothing in it that only binary data has."""
    return text.isprintable() or all(each.isprintable() or each in "\t\r\n" for each in text)


def preview(value: bytes | memoryview, max_bytes: int = SHOWN_BYTES) -> str:
    """The size of bytes, and how they begin."""
    more = "…" if len(value) > max_bytes else ""
    return f"<{len(value):,} bytes{': ' if value else ''}{value[:max_bytes].hex()}{more}>"
