"""Log lines: one event each, whatever a client sends."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from kpy import log_output

HOSTILE = "id\r\n2026-01-01 ERROR forged\x1b[31m\x00\x9b\u2028\u202e\x7f"
ESCAPED = "id\\r\\n2026-01-01 ERROR forged\\x1b[31m\\x00\\x9b\\u2028\\u202e\\x7f"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Takes the log's output, and gives the root logger back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_person_reads_time_level_logger_message_and_fields(stream: io.StringIO):
    log_output.set_up("human", "info", stream)
    logging.getLogger("kpy.test").info("%s joined", "m1", extra={"group": "g", "generation": 3})
    pattern = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    kpy\.test: m1 joined group=g generation=3\n"
    assert re.fullmatch(pattern, stream.getvalue())


@pytest.mark.parametrize("output_format", ["human", "json"])
def test_a_client_cannot_forge_a_line_or_colour_a_terminal(stream: io.StringIO, output_format: str):
    log_output.set_up(output_format, "info", stream)
    logging.getLogger("kpy.test").info("hello from %s", HOSTILE, extra={"client_id": HOSTILE})
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    if output_format == "human":
        assert line.endswith(f"hello from {ESCAPED} client_id={ESCAPED}")
    else:
        event = json.loads(line)
        assert event["message"] == f"hello from {HOSTILE}"
        assert event["client_id"] == HOSTILE


def test_a_machine_reads_json_with_utc_time(stream: io.StringIO):
    log_output.set_up("json", "info", stream)
    logging.getLogger("kpy.test").warning("disk is full", extra={"path": "/data", "left": 0})
    event = json.loads(stream.getvalue())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("time"))
    assert event == {"level": "WARNING", "logger": "kpy.test", "message": "disk is full", "path": "/data", "left": 0}


def log_an_exception_with_a_hostile_text() -> None:
    try:
        raise ValueError(f"no such {HOSTILE}")
    except ValueError:
        logging.getLogger("kpy.test").exception("failed")


def test_a_traceback_follows_its_line_marked_with_a_bar(stream: io.StringIO):
    log_output.set_up("human", "info", stream)
    log_an_exception_with_a_hostile_text()
    first, *others = stream.getvalue().removesuffix("\n").split("\n")
    assert first.endswith("ERROR   kpy.test: failed")
    assert others[0] == "    | Traceback (most recent call last):"
    assert all(line.startswith("    | ") and line.isprintable() for line in others)


def test_a_traceback_is_a_field_of_its_json_line(stream: io.StringIO):
    log_output.set_up("json", "info", stream)
    log_an_exception_with_a_hostile_text()
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["exception"].startswith("Traceback (most recent call last):")


def test_events_below_the_level_are_left_out(stream: io.StringIO):
    log_output.set_up("human", "warning", stream)
    logging.getLogger("kpy.test").info("quiet")
    assert stream.getvalue() == ""
