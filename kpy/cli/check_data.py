"""`kpy check-data`: reads data directories from end to end and says what is wrong with them, one finding a line.

    warning  data/t-0/00000000000000000000.index: is missing; it is rebuilt when it is first used

`--repair` makes anew what can be made from the records: indexes, transaction indexes, producer snapshots, leader
epochs, checkpoints. It never touches a .log file, and holds the directories' locks, so that no broker comes between.
"""

import itertools
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, TextIO

from kpy.cli.arguments import Options
from kpy.cli.known_topics import known_topic_ids
from kpy.cli.style import Style, escaped, wants_colour
from kpy.storage.data_check import DataCheck, lock_holder, log_bytes
from kpy.storage.findings import Finding, ReadOnlyFs, Severity
from kpy.storage.fs import Fs, OsFs
from kpy.storage.log_directory import LOCK, META_PROPERTIES, PARTITION_DIR
from kpy.storage.segment_files import LOG_SUFFIX

_DAMAGED: Final = 1
_MISUSED: Final = 2
_PROGRESS_INTERVAL_S: Final = 0.2
_MIB: Final = 1 << 20


class _MisuseError(Exception):
    """The directories cannot be checked, for the reason given."""


def check_data(options: Options) -> int:
    """Prints the findings and returns the exit code: 0 nothing is wrong, 1 something is, 2 called wrongly."""
    paths = [os.path.normpath(path) for path in options.paths]
    fs = OsFs() if options.repair else ReadOnlyFs()
    # What storage would log of a repair is in the findings.
    logging.getLogger("kpy.storage").addHandler(logging.NullHandler())
    locks: list[int] = []
    try:
        for path in paths:
            _check_use(path)
            if options.repair:
                locks.append(_locked(fs, path))
        return _Run(fs, paths, options).run()
    except _MisuseError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return _MISUSED
    except BrokenPipeError:
        # Whoever reads the output has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
    finally:
        for lock in locks:
            fs.close(lock)
    return _DAMAGED


def _check_use(path: str) -> None:
    if not os.path.isdir(path):
        raise _MisuseError(f"{path} is not a directory")
    names = os.listdir(path)
    if META_PROPERTIES not in names and any(name.endswith(LOG_SUFFIX) for name in names):
        raise _MisuseError(f"{path} is one partition's directory: check that with `kpy dump-log --verify {path}`")
    if META_PROPERTIES not in names and not any(PARTITION_DIR.fullmatch(name) for name in names):
        raise _MisuseError(f"{path} is not a data directory: it has neither {META_PROPERTIES} nor a partition")


def _locked(fs: Fs, path: str) -> int:
    lock = fs.lock(f"{path}/{LOCK}")
    if lock is None:
        raise _MisuseError(f"{path} is in use by process {lock_holder(path)}; stop the broker before a repair")
    return lock


class FindingPrinter:
    """Prints findings, as lines for people or as JSON, and counts them. `repair` carries out what they offer."""

    def __init__(self, out: TextIO, style: Style, *, as_json: bool, repair: bool = False) -> None:
        self._out = out
        self._style = style
        self._as_json = as_json
        self._repair = repair
        self._repaired: set[str] = set()
        self.counts: Counter[Severity] = Counter()
        self.repairs = 0

    @property
    def unrepaired(self) -> int:
        """How many findings still stand for something that is wrong."""
        return self.counts[Severity.ERROR] + self.counts[Severity.WARNING] - self.repairs

    def show(self, finding: Finding) -> None:
        self.counts[finding.severity] += 1
        done = ""
        if self._repair and finding.repair is not None:
            done = "repaired already" if finding.path in self._repaired else finding.repair()
            self._repaired.add(finding.path)
            self.repairs += finding.severity is not Severity.NOTE
        print(self._json(finding, done) if self._as_json else self._line(finding, done), file=self._out)

    def verdict(self, path: str, *, is_sound: bool) -> None:
        """What a check of one file or directory came to."""
        if self._as_json:
            print(json.dumps({"type": "verdict", "path": path, "is_sound": is_sound}), file=self._out)
        else:
            print(f"{escaped(path)}: {'sound' if is_sound else self._style.problem('damaged')}", file=self._out)

    def _json(self, finding: Finding, done: str) -> str:
        fields = {"type": "finding", "severity": finding.severity, "path": finding.path, "position": finding.position}
        fields |= {"what": finding.what, "outcome": finding.outcome, "repairable": finding.repair is not None}
        return json.dumps(fields | ({"repaired": done} if done else {}))

    def _line(self, finding: Finding, done: str) -> str:
        style = self._style
        paint = {Severity.ERROR: style.problem, Severity.WARNING: style.title, Severity.NOTE: style.faint}
        where = escaped(finding.path) + ("" if finding.position is None else f" at byte {finding.position}")
        line = f"{paint[finding.severity](f'{finding.severity:<8}')} {where}: {escaped(finding.what)}"
        if done:
            return f"{line}; {style.text(escaped(done))}"
        return f"{line}; {style.faint(escaped(finding.outcome))}" if finding.outcome else line


class _Run:
    """One run over all directories, with its progress on a terminal."""

    def __init__(self, fs: Fs, paths: Sequence[str], options: Options) -> None:
        self._as_json = options.as_json
        known_ids, self._of_metadata = known_topic_ids(paths)
        self._check = DataCheck(fs, paths, self._progressed, known_ids)
        style = Style(in_colour=wants_colour(options.color, sys.stdout))
        self._printer = FindingPrinter(sys.stdout, style, as_json=options.as_json, repair=options.repair)
        self._shows_progress = sys.stderr.isatty()
        self._total_bytes = log_bytes(fs, paths) if self._shows_progress else 0
        self._read_bytes = 0
        self._started_s = self._shown_s = time.monotonic()

    def run(self) -> int:
        for finding in itertools.chain(self._of_metadata, self._check.findings()):
            self._clear_progress()
            self._printer.show(finding)
        self._clear_progress()
        print(self._summary())
        sys.stdout.flush()
        return _DAMAGED if self._printer.unrepaired else 0

    def _progressed(self, size_bytes: int) -> None:
        self._read_bytes += size_bytes
        now_s = time.monotonic()
        if self._shows_progress and now_s - self._shown_s >= _PROGRESS_INTERVAL_S:
            self._shown_s = now_s
            percent = 100 * self._read_bytes // max(1, self._total_bytes)
            print(
                f"\r{percent} % of {self._total_bytes / _MIB:,.0f} MiB, {self._speed()}\x1b[K", end="", file=sys.stderr
            )
            sys.stderr.flush()

    def _clear_progress(self) -> None:
        if self._shows_progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _speed(self) -> str:
        seconds = max(1e-3, time.monotonic() - self._started_s)
        return f"{self._read_bytes / seconds / 1e6:,.0f} MB/s"

    def _summary(self) -> str:
        read, counts = self._check.summary, self._printer.counts
        if self._as_json:
            fields = {"type": "summary", **read._asdict(), "repairs": self._printer.repairs}
            return json.dumps(fields | {f"{severity}s": counts[severity] for severity in Severity})
        found = ", ".join(f"{counts[each]} {each}{'' if counts[each] == 1 else 's'}" for each in Severity)
        if self._printer.repairs:
            found += f"; {self._printer.repairs} repaired"
        return (
            f"{read.partitions:,} partitions, {read.segments:,} segments, {read.batches:,} batches, "
            f"{read.records:,} records, {read.size_bytes:,} bytes ({self._speed()}): {found}"
        )
