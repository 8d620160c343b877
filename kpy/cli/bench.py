"""`kpy bench`: what a Kafka broker does on this machine and network, measured by a client in Python.

It works in a topic of its own, which it deletes at the end, also after Ctrl-C. Rows are printed as they are measured. A
client in Python is slower than most brokers, so every row says how much of a core it took; where that was nearly all of
one, the row says that it is the client's limit.
"""

import argparse
import json
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, TextIO, cast

import trio

from kpy.cli.arguments import Options
from kpy.cli.bench_client import Address, BenchError, Cluster
from kpy.cli.bench_works import GROUPS, Figure, Load, Target, Work, works
from kpy.cli.style import escaped
from kpy.config_types import ConfigError
from kpy.errors import ApiError, WireError
from kpy.listeners import from_flag, parse_listeners

CLEANUP_S: Final = 15.0
MAX_CONNECTIONS: Final = 1000
MAX_IN_FLIGHT: Final = 100
NAME_COLUMNS: Final = 48

_FAILED: Final = 1
_MISUSED: Final = 2

CLIENT_LIMIT: Final = "the client's limit, not the broker's"


class Report:
    """Prints figures as they come, as a table or as JSON, an object a line."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self.failures = 0

    def begin(self, bootstrap: Address, target: Target) -> None:
        about = {"bootstrap": str(bootstrap), "leader": str(target.leader), "topic": target.topic}
        if self._as_json:
            self._line({"type": "run", **about, "seconds": target.seconds, "acks": target.acks})
            return
        self._print(f"{bootstrap}: partition 0 of topic {escaped(target.topic)}, led by {target.leader}\n")
        self._print(f"{'':{NAME_COLUMNS}} {'':>10} {'':<10}  client's CPU")

    def figure(self, figure: Figure) -> None:
        if self._as_json:
            self._line({"type": "figure", **figure._asdict(), "is_of_client": figure.is_of_client})
            return
        note = f"  {CLIENT_LIMIT}" if figure.is_of_client else ""
        value = f"{number(figure.value):>10} {figure.unit:<10}"
        self._print(f"{figure.name:<{NAME_COLUMNS}} {value}  {100 * figure.client_share:3.0f} % of a core{note}")

    def failure(self, name: str, reason: str) -> None:
        self.failures += 1
        if self._as_json:
            self._line({"type": "failure", "name": name, "reason": reason})
        else:
            self._print(f"{name:<{NAME_COLUMNS}} not measured: {escaped(reason)}")

    def _line(self, fields: dict[str, object]) -> None:
        self._print(json.dumps(fields))

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def load(text: str) -> Load:
    """`10x5`: ten connections with five requests in flight each."""
    connections, _, in_flight = text.partition("x")
    if not (connections.isdecimal() and in_flight.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not CONNECTIONSxIN_FLIGHT, as 10x5 is")
    if not (1 <= int(connections) <= MAX_CONNECTIONS and 1 <= int(in_flight) <= MAX_IN_FLIGHT):
        raise argparse.ArgumentTypeError(f"{text!r}: up to {MAX_CONNECTIONS} connections and {MAX_IN_FLIGHT} in flight")
    return Load(int(connections), int(in_flight))


def bench(options: Options) -> int:
    """Measures and returns the exit code: 0 all is measured, 1 not all, 2 wrong arguments, 130 Ctrl-C."""
    try:
        [endpoint] = parse_listeners("--bootstrap", from_flag("--bootstrap", options.bootstrap))
        groups = options.rows.split(",") if options.rows else list(GROUPS)
        if unknown := sorted(set(groups) - set(GROUPS)):
            raise ConfigError("--rows", options.rows, f"no {unknown[0]!r} among {', '.join(GROUPS)}")
    except ConfigError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return _MISUSED
    report = Report(sys.stdout, as_json=options.as_json)
    chosen = works(groups, options.loads or [Load(1, 1), Load(1, 5), Load(10, 5)])
    return trio.run(_bench, Address(endpoint.host, endpoint.port), chosen, options, report)


async def _bench(bootstrap: Address, chosen: list[tuple[str, Work]], options: Options, report: Report) -> int:
    received: list[int] = []
    work_scope, cleanup_scope = trio.CancelScope(), trio.CancelScope(deadline=float("inf"), shield=True)
    cluster = Cluster(bootstrap)
    made = ""
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_by_signal, received, [work_scope, cleanup_scope])
        try:
            with work_scope, _told(report):
                await cluster.connect()
                topic = options.topic
                if topic is None:
                    topic = made = await cluster.create_topic(options.replication_factor)
                leader = await cluster.leader(topic, is_new=bool(made))
                target = Target(
                    cluster,
                    leader,
                    topic,
                    -1 if options.acks == "all" else int(options.acks),
                    options.seconds,
                    options.record_bytes,
                    options.max_megabytes,
                    options.records_per_s,
                )
                report.begin(bootstrap, target)
                for name, work in chosen:
                    await _measure(name, work, target, report)
        finally:
            cleanup_scope.deadline = trio.current_time() + CLEANUP_S
            with cleanup_scope, _told(report):
                if made:
                    await cluster.delete_topic(made)
                    made = ""
            if made:
                print(f"kpy: warning: topic {made} is left behind", file=sys.stderr)
            cluster.close()
        nursery.cancel_scope.cancel()
    if received:
        return 128 + received[0]
    return _FAILED if report.failures else 0


async def _measure(name: str, work: Work, target: Target, report: Report) -> None:
    """One work and its figures, or why there are none; the others are measured all the same."""
    try:
        for figure in await work(target):
            report.figure(figure)
    except (BenchError, WireError, ApiError, ExceptionGroup) as error:
        report.failure(name, _reason(error))


def _reason(error: BaseException) -> str:
    """Of the first one, in groups as trio's nurseries make them; anything unexpected is raised again."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if not isinstance(error, BenchError | WireError | ApiError):
        raise error
    return str(error)


@contextmanager
def _told(report: Report) -> Generator[None]:
    """What cannot be done is told to whoever asked, and counts as a failure."""
    try:
        yield
    except (BenchError, WireError) as error:
        report.failures += 1
        print(f"kpy: error: {error}", file=sys.stderr)


async def _cancel_by_signal(
    received: list[int], scopes: list[trio.CancelScope], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """The first signal ends the work, the next one the cleaning up too."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for each in signals:
            received.append(each)
            scopes[min(len(received), len(scopes)) - 1].cancel()
