"""The benchmark's arithmetic: which numbers count, and what its table says of them."""

import pytest

from bench.__main__ import chosen
from bench.all_works import ALL_WORKS
from bench.cluster_rows import CLUSTER_WORKS
from bench.results import Sample, counted, spread, table
from bench.work import Row

RATE = Row("rate", "1/s", "higher")
TIME = Row("time", "s", "lower")


def samples(*values: float) -> list[Sample]:
    return [Sample(value, 0.0) for value in values]


def cells(row: Row, kpy: list[Sample], kafka: list[Sample]) -> list[str]:
    last_line = table([row], {"kpy": {row.name: kpy}, "kafka": {row.name: kafka}}, {}).splitlines()[-1]
    return [cell.strip() for cell in last_line.strip("|").split("|")]


CALM, DISTURBED = 0.0, 0.5


def test_a_round_that_was_disturbed_for_one_broker_is_left_out_for_both() -> None:
    kpy = [Sample(1.0, CALM), Sample(9.0, CALM), Sample(2.0, CALM)]
    kafka = [Sample(3.0, CALM), Sample(4.0, DISTURBED), Sample(5.0, CALM)]
    assert counted({"kpy": kpy, "kafka": kafka}) == {"kpy": [1.0, 2.0], "kafka": [3.0, 5.0]}


def test_all_rounds_count_when_most_are_disturbed() -> None:
    kpy = [Sample(1.0, DISTURBED), Sample(9.0, CALM), Sample(2.0, CALM)]
    kafka = [Sample(3.0, CALM), Sample(4.0, DISTURBED), Sample(5.0, CALM)]
    assert counted({"kpy": kpy, "kafka": kafka}) == {"kpy": [1.0, 9.0, 2.0], "kafka": [3.0, 4.0, 5.0]}


def test_spread_is_a_share_of_the_median() -> None:
    assert spread([80.0, 100.0, 130.0]) == 0.5


@pytest.mark.parametrize(("row", "expected"), [(RATE, "**2.00**"), (TIME, "2.00")])
def test_the_ratio_is_bold_where_kpy_is_as_good(row: Row, expected: str) -> None:
    assert cells(row, samples(200.0), samples(100.0))[4] == expected


def test_the_table_gives_median_minimum_maximum_and_runs() -> None:
    row = cells(RATE, samples(100.0, 110.0, 105.0), samples(1.0, 1.0, 1.0))
    assert row[2] == "105 (100 - 110)"
    assert row[5] == "3"
    assert row[6] == ""


def test_a_spread_over_a_fifth_is_noted() -> None:
    assert cells(RATE, samples(90.0, 100.0, 120.0), samples(1.0, 1.0, 1.0))[6] == "kpy spread 30 %"


def test_disturbed_rounds_are_noted() -> None:
    kpy = [Sample(1.0, CALM), Sample(1.0, DISTURBED)]
    assert cells(RATE, kpy, samples(2.0, 2.0))[5:7] == ["1", "1 of 2 disturbed, left out"]


def test_a_row_without_numbers_says_why() -> None:
    text = table([RATE], {"kpy": {}, "kafka": {}}, {"rate": "gcc is not installed"})
    assert text.splitlines()[-1] == "| rate | 1/s | - | - | - | - | gcc is not installed |"


def test_rows_have_names_of_their_own() -> None:
    names = [row.name for work in (*ALL_WORKS, *CLUSTER_WORKS) for row in work.rows]
    assert len(set(names)) == len(names)


def test_a_quick_run_leaves_clusters_out_unless_they_are_asked_for() -> None:
    assert chosen(CLUSTER_WORKS, "", quick=True) == []
    assert chosen(CLUSTER_WORKS, "", quick=False) == list(CLUSTER_WORKS)
    assert chosen(CLUSTER_WORKS, "cluster", quick=True) == list(CLUSTER_WORKS)
    assert chosen(ALL_WORKS, "cluster", quick=False) == []
