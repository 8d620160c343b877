"""`python -m bench`: measures kpy beside Apache Kafka, prints a table, and adds a line to results/runs.jsonl.

Works that need a broker of their own (start-up, memory) come first, one broker at a time and no other process up. Then
both brokers are started and warmed up, and every round does each work on kpy and right after on Apache Kafka. The one
that has its pause stays up, since a JVM that starts anew for each number would never be measured warm; what it takes
meanwhile is the row "idle CPU". Rounds are the outer loop: a minute in which the machine is slow then costs each row
one number and no row all of them. Clusters come last, in rounds of their own, and never two of them at once.
"""

import argparse
import itertools
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

from bench import brokers, picture, profiling
from bench.all_works import ALL_WORKS
from bench.brokers import BrokerProcess, Kind
from bench.cluster import running_cluster
from bench.cluster_rows import CLUSTER_WORKS, ClusterWork
from bench.cluster_rows import measure as measure_cluster
from bench.cluster_rows import warm_up as warm_up_cluster
from bench.curves import growth_table
from bench.proc import cpu_seconds_of_others, raise_descriptor_limit
from bench.programs import Java, NotInstalledError, WorkFailedError
from bench.results import RUNS_FILE, Sample, append_line, machine, others_share, table
from bench.row_groups import GROUPS, in_groups
from bench.tls import broker_settings
from bench.warm_up import warm_up, warm_up_over_tls
from bench.work import FULL, QUICK, Bench, Row, Work

TOOL_LOG4J = """\
log4j.rootLogger=WARN, stderr
log4j.appender.stderr=org.apache.log4j.ConsoleAppender
log4j.appender.stderr.target=System.err
log4j.appender.stderr.layout=org.apache.log4j.PatternLayout
log4j.appender.stderr.layout.ConversionPattern=%p %m (%c)%n
"""


AnyWork = TypeVar("AnyWork", Work, ClusterWork)


class Measurements:
    """The samples of each broker, and why rows have none."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.samples: dict[str, dict[str, list[Sample]]] = {kind.name: {} for kind in kinds}
        self.failures: dict[str, str] = {}

    def take(self, name: str, rows: Sequence[Row], measure: Callable[[], tuple[float, ...]], cores: int) -> None:
        """Does a work once on the broker of this name and keeps its numbers, or the reason why there are none."""
        started, others_before = time.monotonic(), cpu_seconds_of_others()
        try:
            values = measure()
        except (NotInstalledError, WorkFailedError, ConnectionError, TimeoutError) as error:
            _say(f"  {name}: {rows[0].name}: {error}")
            reason = str(error).partition("\n")[0]
            self.failures.update({row.name: f"{name}: {reason}" for row in rows})
            return
        capacity_s = cores * (time.monotonic() - started)
        others_share = max(0.0, cpu_seconds_of_others() - others_before) / capacity_s
        for row, value in zip(rows, values, strict=True):
            self.samples[name].setdefault(row.name, []).append(Sample(value, others_share))


def main() -> int:
    options = _options()
    try:
        works = chosen(ALL_WORKS, options.rows, options.quick, options.groups)
        cluster_works = chosen(CLUSTER_WORKS, options.rows, options.quick, options.groups)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not works and not cluster_works:
        print(f"no row matches {options.rows!r}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    raise_descriptor_limit()
    home = Path(tempfile.mkdtemp(prefix="kpy-bench-", dir=options.dir))
    try:
        if options.profile:
            return profiling.profile(_bench(home, options))
        return _compare(works, cluster_works, _bench(home, options), options)
    except (NotInstalledError, WorkFailedError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """As Ctrl-C does: ends the brokers and deletes what they wrote. A second signal ends that too."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures kpy beside Apache Kafka 3.9.1.")
    parser.add_argument("--rows", default="", metavar="PATTERN", help="only rows whose name this regex is found in")
    parser.add_argument("--groups", default="", metavar="NAMES", help=f"only rows of these: {','.join(GROUPS)}")
    parser.add_argument("--runs", type=int, metavar="N", help="numbers for each row and broker (5; quick: 2)")
    parser.add_argument("--only", choices=("kpy", "kafka"), help="measure one broker alone")
    parser.add_argument("--quick", action="store_true", help="fewer rows and shorter ones: about five minutes")
    parser.add_argument("--minutes", type=float, default=30, help="begin no round that would end later than this (30)")
    parser.add_argument("--profile", action="store_true", help="instead: where kpy spends its time, by cProfile")
    parser.add_argument("--dir", metavar="DIR", help="where data directories are made and deleted (the system's)")
    parser.add_argument("--history-mb", type=int, metavar="MB", help="the length of long logs (5000; quick: 500)")
    parser.add_argument("--kafka-classpath", metavar="PATH", help="Apache Kafka's jars, instead of Maven's")
    parser.add_argument("--no-record", action="store_true", help=f"add nothing to results/{RUNS_FILE.name}")
    return parser.parse_args()


def chosen(works: Iterable[AnyWork], pattern: str, quick: bool, groups: str = "") -> list[AnyWork]:
    """Works of which at least one row is asked for. Whoever asks reaches rows that are left out otherwise."""
    wanted, is_in_group = re.compile(pattern), in_groups(groups)
    return [
        work
        for work in works
        if any(wanted.search(row.name) and (not groups or is_in_group(row.name)) for row in work.rows)
        and (pattern or groups or (work.in_quick if quick else work.in_full))
    ]


def _bench(home: Path, options: argparse.Namespace) -> Bench:
    log4j = home / "tools-log4j.properties"
    log4j.write_text(TOOL_LOG4J)
    scale = QUICK if options.quick else FULL
    scale = scale._replace(history_megabytes=options.history_mb or scale.history_megabytes)
    return Bench(home, Java(options.kafka_classpath, log4j), scale, itertools.count())


def _compare(
    works: Sequence[Work], cluster_works: Sequence[ClusterWork], bench: Bench, options: argparse.Namespace
) -> int:
    started = time.monotonic()
    runs = options.runs or (2 if options.quick else 5)
    kinds = [brokers.kpy(), brokers.kafka(bench.java, bench.home / "formatted")]
    kinds = [kind for kind in kinds if options.only in (None, kind.name)]
    cores = machine()["cores"]
    found = Measurements(kinds)
    deadline = started + 60 * options.minutes
    # Start-up and memory hardly vary, and Apache Kafka takes long to start after a SIGKILL: half the runs will do.
    _on_new_brokers([work for work in works if work.on_new_broker], bench, kinds, (runs + 1) // 2, found, cores)
    shared = [work for work in works if not work.on_new_broker]
    rounds = _side_by_side(shared, bench, kinds, runs, deadline, found, cores) if shared else runs
    if cluster_works:
        kinds = [brokers.kpy(), brokers.kafka_on_zookeeper(bench.java)]
        kinds = [kind for kind in kinds if options.only in (None, kind.name)]
        # Time of their own: beside the other rows they would never be done.
        deadline = time.monotonic() + 60 * options.minutes
        rounds = min(rounds, _on_clusters(cluster_works, bench, kinds, runs, deadline, found, cores))
    rows = [row for work in (*works, *cluster_works) for row in work.rows]
    minutes = (time.monotonic() - started) / 60
    _report(
        rows,
        found,
        options,
        {"runs": rounds, "minutes": round(minutes, 1), "history_megabytes": bench.scale.history_megabytes},
    )
    return 1 if found.failures else 0


def _on_new_brokers(
    works: Sequence[Work], bench: Bench, kinds: Sequence[Kind], runs: int, found: Measurements, cores: int
) -> None:
    for number, work in itertools.product(range(1, runs + 1), works):
        _say(f"run {number} of {runs}: {work.rows[0].name}")
        for kind in kinds:
            broker = BrokerProcess(kind, bench.home / kind.name, work.settings)
            try:
                found.take(broker.name, work.rows, partial(work.measure, bench, broker), cores)
            finally:
                broker.discard()


def _rounds(runs: int, deadline: float) -> Iterator[int]:
    """Their numbers, from 1; none is begun that would end later than the deadline if it took as long as the last."""
    for number in range(1, runs + 1):
        started = time.monotonic()
        yield number
        now = time.monotonic()
        if number < runs and now + (now - started) > deadline:
            _say(f"out of time after {number} of {runs} runs")
            return


def _side_by_side(
    works: Sequence[Work],
    bench: Bench,
    kinds: Sequence[Kind],
    runs: int,
    deadline: float,
    found: Measurements,
    cores: int,
) -> int:
    """Returns the number of rounds that the time allowed."""
    running: list[BrokerProcess] = []
    over_tls = any(work.over_tls for work in works)
    try:
        for kind in kinds:
            broker = BrokerProcess(kind, bench.home / kind.name, broker_settings(bench) if over_tls else None)
            running.append(broker)
            _say(f"warming up {broker.name}")
            broker.start()
            warm_up(bench, broker)
            if over_tls:
                warm_up_over_tls(bench, broker)
        number = 0
        for number in _rounds(runs, deadline):
            for work in works:
                _say(f"run {number} of {runs}: {work.rows[0].name}")
                for broker in running:
                    found.take(broker.name, work.rows, partial(work.measure, bench, broker), cores)
        return number
    finally:
        for broker in running:
            broker.discard()


def _on_clusters(
    works: Sequence[ClusterWork],
    bench: Bench,
    kinds: Sequence[Kind],
    runs: int,
    deadline: float,
    found: Measurements,
    cores: int,
) -> int:
    """One cluster at a time. Returns the number of rounds that the time allowed."""
    shared = [work for work in works if not work.on_new_cluster]
    number = 0
    for number in _rounds(runs, deadline):
        for kind in kinds:
            groups = [shared] if shared else []
            for group in groups + [[work] for work in works if work.on_new_cluster]:
                with running_cluster(kind, bench.java, bench.home / f"cluster-{kind.name}") as cluster:
                    if group is shared:
                        _say(f"warming up three brokers of {kind.name}")
                        warm_up_cluster(bench, cluster)
                    for work in group:
                        _say(f"run {number} of {runs}, {kind.name}: {work.rows[0].name}")
                        found.take(kind.name, work.rows, partial(measure_cluster, work, bench, cluster), cores)
    return number


def _report(rows: Sequence[Row], found: Measurements, options: argparse.Namespace, done: Mapping[str, Any]) -> None:
    by_broker = found.samples
    print(
        f"Medians of {done['runs']} runs in {done['minutes']} minutes; ratio = kpy / kafka, bold where kpy is as good"
    )
    print("or better; a note where the spread (max - min) is over 20 % of the median.\n")
    print(", ".join(f"{name}: {value}" for name, value in machine().items()), end="\n\n")
    print(f"Other processes took {100 * others_share(by_broker.values()):.0f} % of the machine meanwhile.\n")
    print(table(rows, by_broker, found.failures))
    if growth := growth_table(rows, by_broker):
        print(f"\n{growth}")
    if not options.no_record:
        append_line(
            rows, by_broker, found.failures, {**done, "quick": options.quick, "rows": options.rows or options.groups}
        )
        if not (options.rows or options.groups or options.quick or options.only):
            picture.write()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
