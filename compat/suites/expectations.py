"""What a suite of a client's own tests is, what is expected of it, and how a run is compared with that.

`<suite>.tests` has a line for each test: `pass NAME`, or `fail NAME  # reason`, where `fail` also stands for a test
that skips itself. What is not in the list is as wrong as what ends differently, so the list is true as it stands.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast

Outcome = Literal["pass", "fail"]


class Suite(NamedTuple):
    """A client's own tests: `settings` of the broker that they expect, how they are built, and how they are run."""

    name: str
    settings: Mapping[str, str]
    prepare: Callable[[Path], Path]
    """Called with the directory to build in, which later runs find as it was left; returns where the tests are."""
    run: Callable[[Path, str, Path], dict[str, Outcome]]
    """Called with that, the broker's address, and a path for a report, beside which it leaves a log."""


class Expectation(NamedTuple):
    """How a test ends, and why when it does not pass."""

    outcome: Outcome
    reason: str


def expectations(path: Path) -> dict[str, Expectation]:
    """Test -> what is expected of it. Raises ValueError for a line that says nothing clear."""
    expected: dict[str, Expectation] = {}
    for line in path.read_text().splitlines():
        words, _, reason = (part.strip() for part in line.partition("#"))
        if not words:
            continue
        outcome, _, name = words.partition(" ")
        if outcome not in ("pass", "fail") or not name or name in expected or (outcome == "fail") != bool(reason):
            raise ValueError(f"{path.name}: {line!r}: pass NAME, or fail NAME  # reason, each test once")
        expected[name] = Expectation(cast("Outcome", outcome), reason)
    return expected


def surprises(expected: Mapping[str, Expectation], outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each test that did not end as expected, that is not in the list, or that did not run."""
    lines: list[str] = []
    for name in sorted({*expected, *outcomes}):
        outcome = outcomes.get(name)
        if name not in expected:
            lines.append(f"not in the list: {outcome} {name}")
        elif outcome is None:
            lines.append(f"did not run: {name}")
        elif outcome != expected[name].outcome:
            why = f", though: {expected[name].reason}" if expected[name].reason else ""
            lines.append(f"{outcome}, not {expected[name].outcome}: {name}{why}")
    return lines
