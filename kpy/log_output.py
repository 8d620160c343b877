"""What the log looks like: one event a line, for people or as JSON.

Much of what is logged comes from clients (ids, topics, addresses). Control characters in it are escaped, so that no
client can forge a line, colour a terminal or hide text behind a change of direction.
"""

import json
import logging
import time
from typing import Final, TextIO

_CONTROLS: Final = (*range(0x20), *range(0x7F, 0xA0))
_UNICODE_LINE_ENDS_AND_DIRECTIONS: Final = (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES: Final = {code: repr(chr(code))[1:-1] for code in (*_CONTROLS, *_UNICODE_LINE_ENDS_AND_DIRECTIONS)}

# What every record has; anything else came in through `extra` and belongs to the event.
_STANDARD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def escape(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey."""
    return text.translate(_ESCAPES)


def set_up(output_format: str, level: str, stream: TextIO) -> None:
    """Sends every logger's events from `level` up to `stream`, instead of wherever they went before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if output_format == "json" else HumanFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


class HumanFormatter(logging.Formatter):
    """2026-11-21 12:00:00.123 INFO    kpy.server: what happened key=value; tracebacks follow, marked with a bar."""

    def format(self, record: logging.LogRecord) -> str:
        when = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"
        fields = "".join(f" {name}={escape(str(value))}" for name, value in _fields(record).items())
        line = f"{when} {record.levelname:7} {record.name}: {escape(record.getMessage())}{fields}"
        # The bar keeps a line of an exception's text from being read as an event.
        return "\n".join([line, *(f"    | {escape(part)}" for part in _traceback(self, record).split("\n") if part)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, exception if there is one, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := _traceback(self, record):
            event["exception"] = trace
        # json escapes control characters and everything outside ASCII by itself.
        return json.dumps(event | _fields(record), default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""
