"""The numbers of one run: their medians as a table, and all of them as one line of JSON."""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.rows import Row

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


def counted(samples: Sequence[Sample]) -> list[float]:
    """The numbers that make up a median: the undisturbed ones, or all if more than half were disturbed."""
    undisturbed = [sample.value for sample in samples if not sample.is_disturbed]
    if 2 * len(undisturbed) >= len(samples):
        return undisturbed
    return [sample.value for sample in samples]


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
        samples = {name: by_broker[name].get(row.name, []) for name in brokers}
        if not any(samples.values()) and row.name not in failures:
            continue
        cells = [_cell(samples[name]) for name in brokers]
        notes = "; ".join([failures[row.name]] if row.name in failures else _notes(samples))
        runs = "/".join(dict.fromkeys(str(len(counted(taken))) for taken in samples.values() if taken)) or "-"
        lines.append(f"| {row.name} | {row.unit} | {' | '.join(cells)} | {_ratio(row, samples)} | {runs} | {notes} |")
    return "\n".join(lines)


def _cell(samples: Sequence[Sample]) -> str:
    if not samples:
        return "-"
    values = counted(samples)
    median = _number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({_number(min(values))} - {_number(max(values))})"


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(row: Row, samples: Mapping[str, list[Sample]]) -> str:
    if not all(samples.get(name) for name in ("kpy", "kafka")):
        return "-"
    kpy, kafka = (statistics.median(counted(samples[name])) for name in ("kpy", "kafka"))
    if not kafka:
        return "-"
    is_as_good = kpy >= kafka if row.better == "higher" else kpy <= kafka
    return f"**{kpy / kafka:.2f}**" if is_as_good else f"{kpy / kafka:.2f}"


def _notes(samples: Mapping[str, list[Sample]]) -> list[str]:
    notes: list[str] = []
    for name, all_samples in samples.items():
        if not all_samples:
            continue
        values = counted(all_samples)
        if len(values) > 1 and spread(values) > NOISY_SPREAD:
            notes.append(f"{name} spread {100 * spread(values):.0f} %")
        disturbed = sum(sample.is_disturbed for sample in all_samples)
        if disturbed:
            left_out = "left out" if len(values) < len(all_samples) else "counted"
            notes.append(f"{name} disturbed {disturbed} of {len(all_samples)}, {left_out}")
    return notes


def append_line(
    rows: Sequence[Row], by_broker: Mapping[str, Samples], failures: Mapping[str, str], options: Mapping[str, Any]
) -> None:
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **_commit(),
        "machine": machine(),
        "options": options,
        "failures": failures,
        "rows": {
            row.name: {
                "unit": row.unit,
                "better": row.better,
                **{name: _for_json(samples[row.name]) for name, samples in by_broker.items() if row.name in samples},
            }
            for row in rows
            if any(row.name in samples for samples in by_broker.values())
        },
    }
    RUNS_FILE.parent.mkdir(exist_ok=True)
    with RUNS_FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _for_json(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "median": float(f"{statistics.median(counted(samples)):.6g}"),
        "values": [float(f"{sample.value:.6g}") for sample in samples],
        "others_share": [round(sample.others_share, 3) for sample in samples],
    }


def _commit() -> dict[str, Any]:
    git = ["git", "--no-optional-locks", "-C", str(REPOSITORY)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run([*git, "status", "--porcelain", "kpy"], capture_output=True, text=True, check=False)
    return {"commit": head.stdout.strip() or None, "kpy_is_modified": bool(changes.stdout.strip())}


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
