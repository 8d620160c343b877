"""`python -m bench --profile`: where kpy's broker spends its time on small requests, function by function.

The broker runs in a process of its own, `python -m bench.profiling <file> start ...`, which starts cProfile at SIGUSR1
and writes what it found at SIGUSR2: so neither the start nor first-time imports are seen. cProfile makes every call
dearer and so exaggerates small functions and builtins. It says what is called how often and what to look at; whether a
change helps is for the rows to say.
"""

import cProfile
import os
import pstats
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from bench import brokers
from bench.brokers import BrokerProcess
from bench.programs import WorkFailedError
from bench.requests import NewRequest, fetch_request, load_name, produce_request, send_requests
from bench.work import Bench

SHOWN = 30
WRITE_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.01

Functions = dict[tuple[str, int, str], tuple[int, int, float, float, Any]]
"""By file, line and name: primitive calls, calls, own seconds, seconds with callees, callers."""


class Case(NamedTuple):
    name: str
    new_request: NewRequest
    connections: int
    in_flight: int
    handler: str


CASES = (
    Case("Produce", produce_request, 1, 1, "produce"),
    Case("Produce", produce_request, 50, 5, "produce"),
    Case("empty Fetch", fetch_request, 1, 1, "fetch"),
    Case("empty Fetch", fetch_request, 50, 5, "fetch"),
)


def profile(bench: Bench) -> int:
    for number, case in enumerate(CASES):
        stats_file = bench.home / f"profile-{number}"
        kind = brokers.kpy_of_checkout((sys.executable, "-m", "bench.profiling", str(stats_file)))
        broker = BrokerProcess(kind, bench.home / f"kpy-{number}")
        try:
            broker.start()
            plain, _ = send_requests(bench, broker, case.new_request, case.connections, case.in_flight)
            os.kill(broker.pid, signal.SIGUSR1)
            profiled, _ = send_requests(bench, broker, case.new_request, case.connections, case.in_flight)
            os.kill(broker.pid, signal.SIGUSR2)
            _wait_for(stats_file)
            print(f"\n## {load_name(case.name, case.connections, case.in_flight)}\n")
            print(f"{plain:,.0f} requests/s; {profiled:,.0f} under the profiler.\n")
            print(costliest(stats_file, case.handler))
        finally:
            broker.discard()
    return 0


def _wait_for(stats_file: Path) -> None:
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while not stats_file.exists():
        if time.monotonic() > deadline:
            raise WorkFailedError("the broker did not write its profile")
        time.sleep(POLL_INTERVAL_S)


def costliest(stats_file: Path, handler: str) -> str:
    """A Markdown table of the functions with the most time of their own; the handler's calls tell the requests."""
    functions: Functions = vars(pstats.Stats(str(stats_file)))["stats"]
    requests = next(
        calls
        for (file, _, name), (_, calls, _, _, _) in functions.items()
        if name == handler and file.endswith(f"kpy/api/{handler}.py")
    )
    by_own_time = sorted(functions.items(), key=lambda item: -item[1][2])
    total_s = sum(own_s for _, (_, _, own_s, _, _) in by_own_time)
    lines = ["| function | calls a request | own us | share | with callees us |", "|---|---:|---:|---:|---:|"]
    for (file, line, name), (_, calls, own_s, with_callees_s, _) in by_own_time[:SHOWN]:
        where = name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {name}"
        figures = (f"{calls / requests:.2f}", f"{own_s * 1e6 / requests:.2f}", f"{100 * own_s / total_s:.1f} %")
        lines.append(f"| {where} | {' | '.join(figures)} | {with_callees_s * 1e6 / requests:.2f} |")
    return "\n".join(lines)


def _run_to_be_profiled(stats_file: Path, arguments: list[str]) -> int:
    from kpy.__main__ import main

    profiler = cProfile.Profile()

    def write(_signal: int, _frame: FrameType | None) -> None:
        profiler.disable()
        part = stats_file.with_suffix(".part")
        profiler.dump_stats(part)
        part.rename(stats_file)

    signal.signal(signal.SIGUSR1, lambda _signal, _frame: profiler.enable())
    signal.signal(signal.SIGUSR2, write)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(_run_to_be_profiled(Path(sys.argv[1]), sys.argv[2:]))
