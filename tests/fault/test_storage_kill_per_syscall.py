"""SIGKILL at every single call that changes the disk, of a roll, a compaction, a checkpoint, a deletion, a truncation.

strace counts the calls of a process that does nothing else (storage_driver.py), kind by kind, and kills it as it enters
the Nth one, for every N. Each time the directory opens again, holds everything that was acknowledged, goes on, and its
indexes fit.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from compat.harness import require_tool
from kpy.records.batch import iter_batches, iter_records
from kpy.storage.log import Log
from tests.fault import storage_driver
from tests.fault.segment_files import check_directory
from tests.fault.storage_driver import COMPACTED, DELETED, KEYS, PLAIN, RECORDS, SCENARIOS, TRUNCATED_TO, value_at

CALLS = (
    *("write", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "sync_file_range", "ftruncate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir"),
)
STRIDE = 1 if os.environ.get("CI") == "true" else 6
"""Every call in CI, every sixth elsewhere: a run takes half a second."""
AT_ONCE = 2
KILLED = -9
KILLED_UNDER_STRACE = 137

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "data"
    storage_driver.fill(root)
    return root


class Call(NamedTuple):
    """One call of the driver's: the Nth of its kind."""

    kind: str
    number: int


def run(root: Path, scenario: str, *options: str) -> tuple[bool, list[str]]:
    """Whether the process was killed, and what it has said before."""
    driver = (sys.executable, "-m", "tests.fault.storage_driver", str(root), scenario)
    result = subprocess.run(
        [require_tool("strace"), "-f", "-qq", *options, *driver],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode in (0, KILLED, KILLED_UNDER_STRACE), result.stderr
    lines = result.stdout.splitlines(keepends=True)
    return result.returncode != 0, [line.strip() for line in lines if line.endswith("\n")]


def calls_of(root: Path, scenario: str) -> list[Call]:
    """Every call of a whole life, in order."""
    trace = root.with_name("trace")
    was_killed, _ = run(root, scenario, "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    assert not was_killed
    numbers: Counter[str] = Counter()
    calls: list[Call] = []
    for kind in re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE):
        numbers[kind] += 1
        calls.append(Call(kind, numbers[kind]))
    return calls


def contents(log: Log) -> dict[int, bytes | None]:
    found: dict[int, bytes | None] = {}
    offset = log.log_start_offset
    while offset < log.log_end_offset and (region := log.read(offset, 300, log.log_end_offset, True)) is not None:
        for header, data in iter_batches(region.read()):
            found.update({record.offset: record.value for record in iter_records(data)})
            offset = header.last_offset + 1
    return found


def check_recovered(root: Path, said: list[str]) -> None:
    dirs = storage_driver.open_dirs(root)
    plain = dirs.logs[PLAIN, 0]
    ends = [int(line.removeprefix("end ")) for line in said if line.startswith("end ")]
    certain = ends[-1] if ends else TRUNCATED_TO if "truncating" in said else RECORDS
    highest = RECORDS + 1 if "truncating" in said and "truncated" not in said else max(certain, RECORDS) + 1
    assert certain <= plain.log_end_offset <= highest
    if "truncated" in said:
        assert plain.log_end_offset <= certain + 1
    # Retention is part of one scenario; what it leaves is a whole tail.
    assert plain.log_start_offset == 0 or plain.log_start_offset < RECORDS
    assert contents(plain) == {
        offset: value_at(offset) for offset in range(plain.log_start_offset, plain.log_end_offset)
    }
    assert plain.producer_state.producers[3].last_sequence == plain.log_end_offset - 1

    compacted = contents(dirs.logs[COMPACTED, 0])
    assert dirs.logs[COMPACTED, 0].log_end_offset == RECORDS
    assert compacted.items() <= {offset: value_at(offset) for offset in range(RECORDS)}.items()
    assert set(range(RECORDS - KEYS, RECORDS)) <= set(compacted)

    assert ((DELETED, 0) in dirs.logs) <= ("deleted" not in said)
    storage_driver.append(plain)
    dirs.clean(0)
    dirs.remove_deleted(1)
    names = [path.name for path in root.iterdir()]
    assert not [name for name in names if name.endswith("-delete")]
    dirs.close()
    for name in names:
        if name.endswith("-0"):
            check_directory(root / name)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_any_call_it_recovers_with_all_that_was_acknowledged(
    template: Path, tmp_path: Path, scenario: str
) -> None:
    shutil.copytree(template, tmp_path / "whole")
    calls = calls_of(tmp_path / "whole", scenario)
    assert len(calls) > 10

    def kill_at(call: Call) -> None:
        root = tmp_path / f"{call.kind}-{call.number}"
        shutil.copytree(template, root)
        inject = f"inject={call.kind}:signal=SIGKILL:when={call.number}"
        was_killed, said = run(root, scenario, "-o", "/dev/null", "-e", f"trace={call.kind}", "-e", inject)
        assert was_killed, f"{call} was not met"
        try:
            check_recovered(root, said)
        except AssertionError as error:
            raise AssertionError(f"killed at {call} of {scenario}, which had said {said}: {error}") from error
        shutil.rmtree(root)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert len(list(pool.map(kill_at, calls[::STRIDE]))) == len(calls[::STRIDE])
