"""Lines that would repeat."""

import logging

import pytest

from kpy.log_repetition import MAX_TEXTS, REMIND_S, Repetition


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_is_said_once_and_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    repetition = Repetition(logging.getLogger("kpy.test"), logging.WARNING, clock)
    for _ in range(2 * 4 * int(REMIND_S) + 1):
        repetition.say("refused")
        clock.now_s += 0.25
    assert [record.getMessage() for record in caplog.records] == [
        "refused",
        "refused (240 times in 60 s)",
        "refused (240 times in 60 s)",
    ]
    assert repetition.over()
    assert not repetition.over()
    repetition.say("refused")
    assert caplog.records[-1].getMessage() == "refused"


def test_lines_that_are_always_others_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    repetition = Repetition(logging.getLogger("kpy.test"), logging.WARNING, Clock())
    for number in range(2 * MAX_TEXTS):
        repetition.say(f"refused {number}")
    assert len(caplog.records) == MAX_TEXTS


def test_a_line_that_has_not_come_for_a_minute_is_news_and_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    repetition = Repetition(logging.getLogger("kpy.test"), logging.WARNING, clock)
    for number in range(MAX_TEXTS):
        repetition.say(f"refused {number}")
    clock.now_s = REMIND_S / 2
    repetition.say("refused 0")
    repetition.say("refused by another")
    clock.now_s = REMIND_S
    caplog.clear()
    for text in ("refused 0", "refused by another", "refused 1"):
        repetition.say(text)
    assert [record.getMessage() for record in caplog.records] == [
        "refused 0 (2 times in 60 s)",
        "refused by another",
        "refused 1",
    ]
