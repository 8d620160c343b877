"""The benchmark's picture: which recordings it shows, and where a bar ends. And the groups of rows."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench import picture
from bench.all_works import ALL_WORKS
from bench.picture import BARS_WIDTH, Bar, bars, grouped, position
from bench.row_groups import GROUPS, in_groups


def run(date: str, kpy: float, kafka: float, better: str = "higher", others: float = 0.0) -> dict[str, Any]:
    def taken(median: float) -> dict[str, Any]:
        return {"median": median, "values": [median], "others_share": [others]}

    machine = {"cores": 2, "cpu": "a <CPU>", "python": "CPython 3.11"}
    row = {"unit": "1/s", "better": better, "kpy": taken(kpy), "kafka": taken(kafka)}
    return {"date": date, "commit": "c" * 40, "machine": machine, "options": {}, "rows": {"Produce, <1>": row}}


def only(*runs: dict[str, Any]) -> Bar:
    (bar,) = bars(runs)
    return bar


@pytest.mark.parametrize(("better", "expected"), [("higher", 2.0), ("lower", 0.5)])
def test_more_than_one_is_always_better(better: str, expected: float) -> None:
    assert only(run("2026-01-01", 20.0, 10.0, better)).advantage == expected


def test_the_newest_undisturbed_recording_is_shown() -> None:
    shown = only(run("2026-01-01", 1, 1), run("2026-01-02", 2, 1), run("2026-01-03", 3, 1, others=0.5))
    assert (shown.date, shown.is_disturbed) == ("2026-01-02", False)


def test_a_row_that_was_always_disturbed_is_shown_as_such() -> None:
    shown = only(run("2026-01-01", 1, 1, others=0.5), run("2026-01-02", 2, 1, others=0.5))
    assert (shown.date, shown.is_disturbed) == ("2026-01-02", True)


def test_a_row_of_one_broker_alone_has_no_bar() -> None:
    alone = run("2026-01-01", 1, 1)
    del alone["rows"]["Produce, <1>"]["kafka"]
    assert not bars([alone])


def test_twice_as_bad_is_as_long_as_twice_as_good() -> None:
    middle = position(1.0)
    assert middle == BARS_WIDTH / 2
    assert position(2.0) - middle == pytest.approx(middle - position(0.5))
    assert position(1000.0) == BARS_WIDTH
    assert position(0.0001) == 0


def test_the_picture_is_well_formed_and_has_a_bar_for_every_row(tmp_path: Path) -> None:
    runs_file = tmp_path / "runs.jsonl"
    runs_file.write_text("".join(json.dumps(run("2026-01-01", kpy, 1)) + "\n" for kpy in (0.5, 3.0)))
    picture.write(runs_file, tmp_path / "picture.svg")
    drawn = ET.parse(tmp_path / "picture.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 1
    assert {"3.00", "Produce, <1>", "2026-01-01, cccccccc, 1 run"} <= {element.text for element in drawn}


def test_every_row_is_in_exactly_one_group_of_the_picture() -> None:
    names = [row.name for work in ALL_WORKS for row in work.rows]
    assert len(set(names)) == len(names)
    assert {sum(name.startswith(beginnings) for beginnings in GROUPS.values()) for name in names} == {1}


def test_growth_is_asked_for_with_the_rows_of_other_groups_that_show_it() -> None:
    is_asked = in_groups("growth")
    assert is_asked("growth, 10 partitions: RSS, idle")
    assert is_asked("Produce, 1000 connections, 1 in flight")
    assert not is_asked("Produce, 50 connections, 1 in flight")
    assert not in_groups("latency")("Produce, 1000 connections, 1 in flight")


def test_rows_of_no_group_are_shown_too() -> None:
    bar = only(run("2026-01-01", 1, 1))
    assert list(grouped([bar._replace(name="tea")])) == ["others"]


def test_a_group_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no group 'tea'"):
        in_groups("latency,tea")
