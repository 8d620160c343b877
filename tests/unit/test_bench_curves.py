"""How the benchmark says how a cost grows."""

from collections.abc import Iterable

import pytest

from bench.__main__ import chosen
from bench.all_works import ALL_WORKS
from bench.curves import CONSTANT, CURVES, LESS, LINEAR, WORSE, growth_of, growth_table
from bench.growth import GROWTH_WORKS
from bench.results import Sample
from bench.work import Work

COUNTS = (10, 100, 1000, 10_000)
ROWS = {row.name: row for work in ALL_WORKS for row in work.rows}


@pytest.mark.parametrize(
    ("costs", "word"),
    [
        ((20, 20, 21, 22), CONSTANT),
        ((20, 22, 19, 15), CONSTANT),
        ((1, 1.1, 2, 11), LINEAR),
        ((100, 101, 110, 200), LINEAR),
        ((0.001, 0.01, 0.1, 1.0), LINEAR),
        ((1, 1.1, 2, 101), WORSE),
        ((20, 20, 21, 200), WORSE),
        ((0.97, 0.77, 1.10, 4.60), LINEAR),
        ((1, 2, 3, 4), LESS),
        ((1, 10, 10, 10), LESS),
    ],
)
def test_what_ten_times_as_many_add_is_compared_with_what_was_added_before(costs: tuple[float, ...], word: str) -> None:
    assert growth_of(COUNTS, costs, negligible=0.0) == word


def test_what_noise_may_explain_is_not_held_against_a_broker() -> None:
    """The step to 21 may have been one of 5 as well as none, since both of its ends may be wrong."""
    assert growth_of(COUNTS, (20, 20, 21, 40), negligible=0.0) == LINEAR


def test_little_more_of_a_small_figure_is_no_growth() -> None:
    assert growth_of(COUNTS, (0.0, 0.0, 0.3, 0.7), negligible=1.0) == CONSTANT
    assert growth_of(COUNTS, (0.0, 0.0, 0.3, 0.7), negligible=0.0) != CONSTANT


def test_the_figures_at_three_counts_will_do() -> None:
    assert growth_of((10, 1000, 10_000), (1, 2, 11), negligible=0.0) == LINEAR


def rows_of(works: Iterable[Work]) -> set[str]:
    return {row.name for work in works for row in work.rows}


def table_of(name_at: str, *values: float) -> str:
    samples = {name_at.format(count): [Sample(value, 0.0)] for count, value in zip(COUNTS, values, strict=False)}
    return growth_table(ROWS.values(), {"kpy": samples})


def test_the_table_shows_a_cost_at_each_count_and_what_stands_out() -> None:
    lines = table_of("growth, {:,} partitions: start after a clean stop", 1.0, 1.1, 2.0, 101.0).splitlines()
    what = "partitions: start after a clean stop"
    assert lines[2] == f"| {what} | s | kpy | 1.00 | 1.10 | 2.00 | 101 | worse than linearly (x101.0) |"
    assert lines[-2:] == [f"kpy grows worse than linearly: {what}", "kpy grows linearly: nothing"]


def test_a_rate_that_falls_is_a_cost_that_grows() -> None:
    (line,) = table_of("Produce, {} connections, 1 in flight", 100_000, 10_000, 1000, 100).splitlines()[2:3]
    assert line.endswith("| 100,000 | 10,000 | 1,000 | 100 | linearly (x1000.0) |")


def test_a_cost_at_two_counts_is_not_shown() -> None:
    assert table_of("growth, {:,} partitions: RSS, idle", 1.0, 2.0) == ""


def test_a_count_that_is_missing_is_left_out() -> None:
    template = "growth, {:,} partitions: RSS, idle"
    samples = {template.format(count): [Sample(1.0, 0.0)] for count in (10, 1000, 10_000)}
    assert "| 1.00 | - | 1.00 | 1.00 | not at all" in growth_table(ROWS.values(), {"kpy": samples})


def test_curves_are_made_of_rows_that_are_measured_in_one_unit() -> None:
    for curve in CURVES:
        assert len(curve.names) == len(curve.counts)
        assert len({(ROWS[name].unit, ROWS[name].better) for name in curve.names}) == 1


def test_growth_is_measured_only_when_it_is_asked_for() -> None:
    asked = rows_of(chosen(ALL_WORKS, "", quick=False, groups="growth"))
    assert rows_of(GROWTH_WORKS) < {name for curve in CURVES for name in curve.names} <= asked
    full = rows_of(chosen(ALL_WORKS, "", quick=False))
    assert not rows_of(GROWTH_WORKS) & full
    assert rows_of(chosen(ALL_WORKS, "", quick=True)) < full
