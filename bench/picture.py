"""`python -m bench.picture`: results/beside-kafka.svg, one bar a row, drawn from results/runs.jsonl.

A bar is kpy's median by Apache Kafka's, the other way round where less is better, so that a bar to the right of 1.0 is
always a row in which kpy is better; the scale is logarithmic, so twice as good is as long as twice as bad. Of each row
the newest recording counts in which other processes left both brokers alone; if there is none, the newest, and the
picture says so. Runs of different days are shown beside each other, each bar being a ratio within one run.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from bench.results import DISTURBED_SHARE, RUNS_FILE
from bench.row_groups import GROUPS

PICTURE = RUNS_FILE.with_name("beside-kafka.svg")
OTHERS = "others"

NAME_WIDTH, BARS_WIDTH, NOTE_WIDTH = 690, 380, 340
ROW_HEIGHT, BAR_HEIGHT, HEAD_HEIGHT, GROUP_HEIGHT = 17, 11, 92, 30
FURTHEST = 16.0
"""A bar ends here, with its figure beside it, however far the ratio is."""
TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0)

STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.faint { fill: #59636e } .group, .title { font-weight: 600 } .title { font-size: 15px }
.better { fill: #2f81c7 } .worse { fill: #c2611f } .grid { stroke: #d1d9e0 } .one { stroke: #1f2328 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9198a1 } .grid { stroke: #3d444d } .one { stroke: #e6edf3 }
  .better { fill: #58a6e8 } .worse { fill: #e08a4a }
}"""


class Bar(NamedTuple):
    name: str
    advantage: float
    """kpy by Apache Kafka, or the other way round where less is better: over 1 kpy is better."""
    date: str
    commit: str
    machine: str
    runs: int
    is_quick: bool
    is_disturbed: bool


def bars(runs: Iterable[Mapping[str, Any]]) -> list[Bar]:
    """One for each row that was ever measured on both brokers, as the rows first came. The oldest run is first."""
    chosen: dict[str, Bar] = {}
    for run in runs:
        for name, row in run["rows"].items():
            bar = _bar(name, row, run)
            if bar is not None and (name not in chosen or not bar.is_disturbed or chosen[name].is_disturbed):
                chosen[name] = bar
    return list(chosen.values())


def _bar(name: str, row: Mapping[str, Any], run: Mapping[str, Any]) -> Bar | None:
    if not {"kpy", "kafka"} <= row.keys() or not row["kpy"]["median"] or not row["kafka"]["median"]:
        return None
    ratio = row["kpy"]["median"] / row["kafka"]["median"]
    rounds = list(zip(row["kpy"]["others_share"], row["kafka"]["others_share"], strict=False))
    disturbed = [shares for shares in rounds if max(shares) > DISTURBED_SHARE]
    machine = run["machine"]
    return Bar(
        name,
        ratio if row["better"] == "higher" else 1 / ratio,
        run["date"][:10],
        (run["commit"] or "unknown")[:8],
        f"{machine['cores']} cores, {machine['cpu']}, {machine['python']}",
        len(rounds),
        bool(run["options"].get("quick")),
        is_disturbed=2 * (len(rounds) - len(disturbed)) < len(rounds),
    )


def grouped(found: Sequence[Bar]) -> dict[str, list[Bar]]:
    groups: dict[str, list[Bar]] = {}
    for name, beginnings in GROUPS.items():
        groups[name] = [bar for bar in found if bar.name.startswith(beginnings)]
    known = {bar.name for members in groups.values() for bar in members}
    groups[OTHERS] = [bar for bar in found if bar.name not in known]
    return {name: members for name, members in groups.items() if members}


def position(advantage: float) -> float:
    """Where a ratio lies between the left end of the bars and the right one, in pixels; 1 is in the middle."""
    bounded = min(max(advantage, 1 / FURTHEST), FURTHEST)
    return BARS_WIDTH * (1 + math.log2(bounded) / math.log2(FURTHEST)) / 2


def ratio_text(advantage: float) -> str:
    return f"{advantage:.0f}" if advantage >= 10 else f"{advantage:.2f}"


def picture(found: Sequence[Bar]) -> str:
    """The whole SVG."""
    groups = grouped(found)
    height = HEAD_HEIGHT + sum(GROUP_HEIGHT + ROW_HEIGHT * len(members) for members in groups.values()) + 12
    width = NAME_WIDTH + BARS_WIDTH + NOTE_WIDTH
    body: list[str] = [*_head(found), *_grid(height)]
    y = HEAD_HEIGHT
    for name, members in groups.items():
        y += GROUP_HEIGHT
        body.append(f'<text class="group" x="8" y="{y - 6}">{escape(name)}</text>')
        for bar in members:
            body += _drawn(bar, y)
            y += ROW_HEIGHT
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *body, "</svg>"]) + "\n"


def _head(found: Sequence[Bar]) -> list[str]:
    """What the bars are, and where they come from."""
    better = sum(bar.advantage >= 1 for bar in found)
    newest = max((bar.date for bar in found), default="never")
    machines = "; ".join(dict.fromkeys(bar.machine for bar in found))
    lines = [
        f"kpy beside Apache Kafka 3.9.1: as good or better in {better} of {len(found)} rows",
        "Each bar is a ratio of medians within one run, so that to the right of 1.0 kpy is better (logarithmic).",
        f"For each row the newest undisturbed recording, up to {newest}: date, commit and runs are beside it.",
        f"Measured on: {machines}",
    ]
    classes = ["title", "faint", "faint", "faint"]
    return [
        f'<text class="{name}" x="8" y="{20 + 17 * number}">{escape(line)}</text>'
        for number, (name, line) in enumerate(zip(classes, lines, strict=True))
    ]


def _grid(height: int) -> list[str]:
    lines: list[str] = []
    for tick in TICKS:
        x = NAME_WIDTH + position(tick)
        name = "one" if tick == 1 else "grid"
        label = "1.0" if tick == 1 else f"{tick:.0f}x" if tick > 1 else f"1/{1 / tick:.0f}"
        lines.append(f'<line class="{name}" x1="{x:.1f}" x2="{x:.1f}" y1="{HEAD_HEIGHT + 4}" y2="{height - 8}"/>')
        lines.append(f'<text class="faint" x="{x:.1f}" y="{HEAD_HEIGHT}" text-anchor="middle">{label}</text>')
    return lines


def _drawn(bar: Bar, y: int) -> list[str]:
    middle, end = NAME_WIDTH + position(1.0), NAME_WIDTH + position(bar.advantage)
    is_better = bar.advantage >= 1
    left, width = min(middle, end), max(abs(end - middle), 1)
    text_y = y + BAR_HEIGHT - 1
    beyond = 'text-anchor="start"' if is_better else 'text-anchor="end"'
    figure_x = end + 4 if is_better else end - 4
    runs = f"{bar.runs} {'short ' if bar.is_quick else ''}{'run' if bar.runs == 1 else 'runs'}"
    note = f"{bar.date}, {bar.commit}, {runs}{', disturbed' if bar.is_disturbed else ''}"
    return [
        f'<text x="{NAME_WIDTH - 44}" y="{text_y}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect class="{"better" if is_better else "worse"}" x="{left:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{BAR_HEIGHT}"/>',
        f'<text x="{figure_x:.1f}" y="{text_y}" {beyond}>{ratio_text(bar.advantage)}</text>',
        f'<text class="faint" x="{NAME_WIDTH + BARS_WIDTH + 44}" y="{text_y}">{escape(note)}</text>',
    ]


def write(runs_file: Path = RUNS_FILE, to: Path = PICTURE) -> None:
    """Draws the picture of all recorded runs."""
    with runs_file.open() as file:
        to.write_text(picture(bars(json.loads(line) for line in file)))


if __name__ == "__main__":
    write()
