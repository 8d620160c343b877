"""How cost grows: rows that differ in nothing but a count, side by side, and what becomes of them at ten times as many.

The word is about the last step, from a tenth of the largest count to the largest. What was there at the smallest count
is taken off, so that a broker's fixed part does not hide what is added. If ten times as many add ten times as much, a
cost grows linearly. Figures are not exact, so only what noise cannot explain is called better or worse than that.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench import connections, growth
from bench.requests import REQUESTS, load_name
from bench.results import Samples, counted, number_text
from bench.work import Row

NOISE = 0.1
"""The share of a figure by which it may be wrong."""
NEGLIGIBLE = {"s": 0.05, "MB": 3.0, "% of a core": 1.0, "us/request": 1.0, "requests/s": 0.0}
"""By unit: so much more is nothing, whatever share of a small figure it is. Of a rate, it is its inverse that grows."""
CLEARLY = 0.1
"""Powers of the count nearer than this to the first one are linear."""
FEWEST_COUNTS = 3

CONSTANT, LESS, LINEAR, WORSE = "not at all", "less than linearly", "linearly", "worse than linearly"


class Curve(NamedTuple):
    """A cost at several counts of something, by the names of its rows."""

    what: str
    of: str
    names: tuple[str, ...]
    counts: tuple[int, ...]


def _beside_partitions() -> Iterable[Curve]:
    of = "partitions"
    for rows in zip(*(work.rows for work in growth.GROWTH_WORKS), strict=True):
        what = rows[0].name.partition(": ")[2]
        yield Curve(what, of, tuple(row.name for row in rows), growth.COUNTS)


def _with_connections() -> Iterable[Curve]:
    of = "connections"
    for rows in zip(*(work.rows for work in connections.CONNECTION_WORKS), strict=False):
        what = f"idle: {rows[0].name.partition(': ')[2]}"
        yield Curve(what, of, tuple(row.name for row in rows), connections.COUNTS)
    for request in (name for name, *_ in REQUESTS if name != "ApiVersions"):
        for suffix in ("", ": broker CPU"):
            names = tuple(f"{load_name(request, count, 1)}{suffix}" for count in connections.COUNTS)
            yield Curve(f"{request}, 1 in flight each{suffix}", of, names, connections.COUNTS)


CURVES: tuple[Curve, ...] = (*_beside_partitions(), *_with_connections())


def growth_of(counts: Sequence[int], costs: Sequence[float], negligible: float) -> str:
    """Which of the four words fits a cost, of which there are at least three figures, at growing counts."""
    first, before, last = costs[0], costs[-2], costs[-1]
    if last <= first * (1 + 2 * NOISE) + negligible:
        return CONSTANT
    step = math.log(counts[-1] / counts[-2])
    added, added_before = last - first, before - first
    noise = max(NOISE * (first + before), negligible)
    lowest_power = math.log(added / max(added_before + noise, noise)) / step
    highest_power = math.log(added / (added_before - noise)) / step if added_before > noise else math.inf
    if lowest_power > 1 + CLEARLY:
        return WORSE
    return LESS if highest_power < 1 - CLEARLY else LINEAR


def growth_table(rows: Iterable[Row], by_broker: Mapping[str, Samples]) -> str:
    """A Markdown table of the curves that were measured at three counts or more, and what stands out; or nothing."""
    known = {row.name: row for row in rows}
    lines: list[str] = []
    found: dict[tuple[str, str], list[str]] = {}
    for curve in CURVES:
        for broker in by_broker:
            medians = _medians(curve, broker, by_broker)
            if len(medians) < FEWEST_COUNTS:
                continue
            row = known[curve.names[0]]
            costs = [1 / value if row.better == "higher" else value for value in medians.values()]
            word = growth_of(list(medians), costs, NEGLIGIBLE[row.unit])
            what = f"{curve.of}: {curve.what}"
            found.setdefault((broker, word), []).append(what)
            cells = [number_text(medians[count]) if count in medians else "-" for count in curve.counts]
            lines.append(f"| {what} | {row.unit} | {broker} | {' | '.join(cells)} | {word}{_factor(costs)} |")
    if not lines:
        return ""
    head = [
        "| cost by number of | unit | broker | 10 | 100 | 1,000 | 10,000 | grows |",
        "|---|---|---|" + "---:|" * 4 + "---|",
    ]
    told = [
        f"{broker} grows {word}: {'; '.join(found.get((broker, word), ['nothing']))}"
        for broker in by_broker
        for word in (WORSE, LINEAR)
    ]
    return "\n".join([*head, *lines, "", *told])


def _factor(costs: Sequence[float]) -> str:
    return f" (x{costs[-1] / costs[0]:.1f})" if costs[0] else ""


def _medians(curve: Curve, broker: str, by_broker: Mapping[str, Samples]) -> dict[int, float]:
    """By count, of those numbers that make up the other table too."""
    medians: dict[int, float] = {}
    for count, name in zip(curve.counts, curve.names, strict=True):
        if name in by_broker[broker]:
            values = counted({each: samples[name] for each, samples in by_broker.items() if name in samples})
            medians[count] = statistics.median(values[broker])
    return medians
