"""`kpy dump-log`: shows the files of a log, or with --verify says what is wrong with them.

    data/t-0/00000000000000000000.log: segment of t-0, 1,204 bytes
      position=0 batch base_offset=0 count=2 codec=gzip ... last_offset=1 crc=0x1f2a3b4c 120 bytes
        offset=0 timestamp=2026-01-01T00:00:00.000Z key="a" value="b"

Files are read piece by piece, so their size does not matter, and a broker may be writing them.
"""

import os
import sys
from collections.abc import Iterator
from typing import Final

from kpy.cli.arguments import Options
from kpy.cli.check_data import FindingPrinter
from kpy.cli.log_files import Batch, Damage, LogFile, records_of
from kpy.cli.log_output import JsonOutput, Output, TextOutput
from kpy.cli.style import Style, wants_colour
from kpy.errors import ApiError
from kpy.storage.checkpoints import LEADER_EPOCHS, PARTITION_METADATA
from kpy.storage.data_check import lock_holder
from kpy.storage.findings import Finding, ReadOnlyFs, Severity
from kpy.storage.fs import File
from kpy.storage.log_directory import CLEAN_SHUTDOWN
from kpy.storage.partition_check import PartitionCheck, PartitionFacts
from kpy.storage.segment_files import SUFFIXES

_DAMAGED: Final = 1
_MISUSED: Final = 2

_FOR_SINGLE_FILE: Final = (LEADER_EPOCHS, PARTITION_METADATA)


def dump_log(options: Options) -> int:
    """Prints and returns the exit code: 0 all is well, 1 something is damaged or unreadable, 2 called wrongly."""
    fs = ReadOnlyFs()
    paths = [os.path.normpath(path) for path in options.paths]
    for path in paths:
        problem = _misuse(fs, path)
        if problem:
            print(f"kpy: error: {path} {problem}", file=sys.stderr)
            return _MISUSED
    style = Style(in_colour=wants_colour(options.color, sys.stdout))
    try:
        if options.verify:
            return _verify(fs, paths, FindingPrinter(sys.stdout, style, as_json=options.as_json))
        kind = JsonOutput if options.as_json else TextOutput
        return _dump(fs, paths, kind(sys.stdout, style, options))
    except BrokenPipeError:
        # Whoever reads the output has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
    return _DAMAGED


def _misuse(fs: ReadOnlyFs, path: str) -> str:
    """Why a path cannot be dumped; empty if it can."""
    if os.path.isdir(path):
        return "" if _files(fs, path) else "is a directory without any file of a log"
    if not os.path.exists(path):
        return "does not exist"
    return "" if LogFile(fs, path).kind else "is not named like a file of a log"


def _files(fs: ReadOnlyFs, path: str) -> list[LogFile]:
    """The file, or the files of the directory: in the order of their offsets, segments first."""
    if not os.path.isdir(path):
        return [LogFile(fs, path)]
    files = [LogFile(fs, f"{path}/{name}") for name in sorted(os.listdir(path)) if os.path.isfile(f"{path}/{name}")]
    known = [file for file in files if file.kind]
    return sorted(known, key=lambda each: (each.base_offset is None, each.base_offset or 0, each.kind != "segment"))


def _dump(fs: ReadOnlyFs, paths: list[str], output: Output) -> int:
    for path in paths:
        for file in _files(fs, path):
            output.begin(file)
            for item in file.items():
                output.show(file, item)
    sys.stdout.flush()
    return _DAMAGED if output.is_damaged else 0


# Verifying ------------------------------------------------------------------------------------------------------------


def _verify(fs: ReadOnlyFs, paths: list[str], printer: FindingPrinter) -> int:
    for path in paths:
        before = printer.unrepaired
        for finding in _findings(fs, path):
            printer.show(finding)
        printer.verdict(path, is_sound=printer.unrepaired == before)
    sys.stdout.flush()
    return _DAMAGED if printer.unrepaired else 0


def _findings(fs: ReadOnlyFs, path: str) -> Iterator[Finding]:
    """What is wrong with a directory, or with one file; of a segment, with its indexes too."""
    if os.path.isdir(path):
        files = _files(fs, path)
        if any(file.base_offset is not None for file in files):
            yield from _partition(fs, path)
        for file in files:
            yield from _contents(file)
        return
    file = LogFile(fs, path)
    if file.base_offset is not None or file.name in _FOR_SINGLE_FILE:
        related = {path}
        if file.kind == "segment":
            related |= {os.path.splitext(path)[0] + suffix for suffix in SUFFIXES}
        for finding in _partition(fs, os.path.dirname(path) or "."):
            if os.path.normpath(finding.path) in related:
                yield finding
    yield from _contents(file)


def _partition(fs: ReadOnlyFs, path: str) -> Iterator[Finding]:
    """The check of a partition, as far as its directory alone says how it was left."""
    data_dir = os.path.dirname(os.path.abspath(path))
    is_live = lock_holder(data_dir) is not None
    is_clean = not is_live and os.path.exists(f"{data_dir}/{CLEAN_SHUTDOWN}")
    # Without the data directory's checkpoints it cannot be known whether compaction has left gaps.
    facts = PartitionFacts(is_live=is_live, is_clean=is_clean, may_have_gaps=True)
    yield from PartitionCheck(fs, path, facts).findings()


def _contents(file: LogFile) -> Iterator[Finding]:
    """What the headers of a segment do not show: whether the records in it can be read and are where they should be."""
    if file.kind == "segment":
        opened = File(file.fs, file.path)
        for item in file.items():
            if isinstance(item, Batch) and item.is_crc_right and (problem := _problem_in(item, opened)):
                yield Finding(Severity.ERROR, file.path, item.position, problem, "consumers refuse it")
    elif file.kind and file.base_offset is None and file.name not in _FOR_SINGLE_FILE:
        for item in file.items():
            if isinstance(item, Damage):
                yield Finding(Severity.WARNING, file.path, item.position, item.what)


def _problem_in(batch: Batch, file: File) -> str:
    header = batch.header
    offset, max_timestamp = header.base_offset - 1, header.max_timestamp
    try:
        for record in records_of(batch, file):
            if not offset < record.offset <= header.last_offset:
                return f"the record at offset {record.offset} is not between {offset} and {header.last_offset + 1}"
            if record.timestamp > max_timestamp:
                return (
                    f"the record at offset {record.offset} is of {record.timestamp}, the batch ends at {max_timestamp}"
                )
            offset = record.offset
    except ApiError as error:
        return str(error)
    return ""
