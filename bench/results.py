"""The numbers of one run: their medians as a table, and all of them as one line of JSON."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench import brokers
from bench.programs import run
from bench.work import Row

RUNS_FILE = Path(__file__).parent / "results" / "runs.jsonl"
REPOSITORY = Path(__file__).parent.parent
NOISY_SPREAD = 0.20
DISTURBED_SHARE = 0.10
"""A number is disturbed when processes that have nothing to do with it took this share of all cores meanwhile."""


class Sample(NamedTuple):
    """One number, and the share of the machine that unrelated processes took while it was measured."""

    value: float
    others_share: float

    @property
    def is_disturbed(self) -> bool:
        return self.others_share > DISTURBED_SHARE


Samples = Mapping[str, list[Sample]]
"""By row name."""


def counted(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[float]]:
    """The numbers of one row that make up the medians, by broker.

    A round is left out, for all brokers alike, if it was disturbed for any; unless more than half of them were.
    """
    rounds = list(zip(*samples.values(), strict=False))
    calm = [taken for taken in rounds if not any(sample.is_disturbed for sample in taken)]
    if 2 * len(calm) < len(rounds):
        return {name: [sample.value for sample in taken] for name, taken in samples.items()}
    return dict(zip(samples, ([sample.value for sample in taken] for taken in zip(*calm, strict=True)), strict=True))


def spread(values: Sequence[float]) -> float:
    """The distance between the smallest and the largest, as a share of the median."""
    median = statistics.median(values)
    return (max(values) - min(values)) / median if median else 0.0


def others_share(by_broker: Iterable[Samples]) -> float:
    """What unrelated processes took of the machine, on average over all numbers."""
    return statistics.fmean([s.others_share for rows in by_broker for samples in rows.values() for s in samples] or [0])


def table(rows: Sequence[Row], by_broker: Mapping[str, Samples], failures: Mapping[str, str]) -> str:
    """A Markdown table. The ratio is kpy's median by Apache Kafka's; bold where kpy is at least as good."""
    brokers = list(by_broker)
    lines = [
        "| row | unit | " + " | ".join(f"{name} (min - max)" for name in brokers) + " | ratio | runs | note |",
        "|---|---|" + "---:|" * (len(brokers) + 2) + "---|",
    ]
    for row in rows:
        samples = {name: taken[row.name] for name, taken in by_broker.items() if row.name in taken}
        if not samples and row.name not in failures:
            continue
        values = counted(samples) if samples else {}
        cells = [_cell(values.get(name)) for name in brokers]
        runs = "/".join(dict.fromkeys(str(len(numbers)) for numbers in values.values())) or "-"
        notes = "; ".join([failures[row.name]] if row.name in failures else _notes(samples, values))
        lines.append(f"| {row.name} | {row.unit} | {' | '.join(cells)} | {_ratio(row, values)} | {runs} | {notes} |")
    return "\n".join(lines)


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    median = number_text(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({number_text(min(values))} - {number_text(max(values))})"


def number_text(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(row: Row, values: Mapping[str, Sequence[float]]) -> str:
    if not {"kpy", "kafka"} <= values.keys():
        return "-"
    kpy, kafka = (statistics.median(values[name]) for name in ("kpy", "kafka"))
    if not kafka:
        return "-"
    is_as_good = kpy >= kafka if row.better == "higher" else kpy <= kafka
    return f"**{kpy / kafka:.2f}**" if is_as_good else f"{kpy / kafka:.2f}"


def _notes(samples: Mapping[str, Sequence[Sample]], values: Mapping[str, Sequence[float]]) -> list[str]:
    notes = [
        f"{name} spread {100 * spread(numbers):.0f} %"
        for name, numbers in values.items()
        if len(numbers) > 1 and spread(numbers) > NOISY_SPREAD
    ]
    rounds = list(zip(*samples.values(), strict=False))
    disturbed = sum(any(sample.is_disturbed for sample in taken) for taken in rounds)
    if disturbed:
        was_left_out = any(len(values[name]) < len(samples[name]) for name in samples)
        notes.append(f"{disturbed} of {len(rounds)} disturbed, {'left out' if was_left_out else 'counted'}")
    return notes


def append_line(
    rows: Sequence[Row], by_broker: Mapping[str, Samples], failures: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_commit(),
        "machine": machine(),
        "kpy": _version_of_kpy(),
        "options": options,
        "failures": failures,
        "rows": {
            row.name: _for_json(row, {name: taken[row.name] for name, taken in by_broker.items() if row.name in taken})
            for row in rows
            if any(row.name in taken for taken in by_broker.values())
        },
    }
    RUNS_FILE.parent.mkdir(exist_ok=True)
    with RUNS_FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _for_json(row: Row, samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    values = counted(samples)
    brokers = {
        name: {
            "median": float(f"{statistics.median(values[name]):.6g}"),
            "values": [float(f"{sample.value:.6g}") for sample in taken],
            "others_share": [round(sample.others_share, 3) for sample in taken],
        }
        for name, taken in samples.items()
    }
    return {"unit": row.unit, "better": row.better, **brokers}


def _commit() -> dict[str, Any]:
    git = ["git", "--no-optional-locks", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run([*git, "status", "--porcelain", "kpy"], capture_output=True, text=True, check=False)
    return {"commit": head.stdout.strip() or None, "kpy_is_modified": bool(changes.stdout.strip())}


def _version_of_kpy() -> str:
    """With what of it is compiled."""
    environment = {**os.environ, **brokers.kpy().environment}
    return run([sys.executable, "-m", "kpy", "--version"], environment=environment).strip()


def machine() -> dict[str, Any]:
    """What the numbers were measured on, as far as it shapes them."""
    meminfo = Path("/proc/meminfo").read_text()
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    try:
        jvm = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
    except FileNotFoundError:
        jvm = []
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": models[0] if models else platform.machine(),
        "memory_mb": int(meminfo.split()[1]) * 1024 // 1_000_000,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "jvm": jvm[-1] if jvm else None,
        "load_average": os.getloadavg()[0],
    }
