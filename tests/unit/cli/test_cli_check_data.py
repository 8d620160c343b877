"""`kpy check-data`: each kind of damage has its line, and --repair brings back what records bring back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_directories import append, open_dirs, write_data_dir

from kpy.__main__ import main
from kpy.records.batch import NewRecord, build_batch
from kpy.records.legacy import down_convert

Run = Callable[..., tuple[int, list[dict[str, Any]]]]
FIRST, SECOND = f"{0:020d}", f"{20:020d}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_data_dir(Path("data"))


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code and findings; the last object is the summary."""

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        code = main(["check-data", "--json", *(arguments or ("data",))])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def flip(path: Path, position: int, mask: int = 0x40) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


def test_a_sound_directory_has_no_findings(run: Run) -> None:
    code, found = run()
    assert code == 0
    assert found == [
        {"type": "summary", "partitions": 3, "segments": 4, "batches": 22, "records": 32, "size_bytes": 2677}
        | {"repairs": 0, "errors": 0, "warnings": 0, "notes": 0}
    ]


def test_people_get_a_line_for_each_finding(data: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    flip(data / "orders-0" / f"{FIRST}.index", 7)
    (data / "junk").write_text("")
    assert main(["check-data", "data"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "note     data/junk: is not of a data directory; it is left alone"
    assert lines[1] == (
        f"warning  data/orders-0/{FIRST}.index at byte 0: points to byte 138, where no batch begins, for offset 5; "
        "it is rebuilt when it is first used"
    )
    assert lines[2].startswith("3 partitions, 4 segments, 22 batches, 32 records, 2,677 bytes (")
    assert lines[2].endswith("): 0 errors, 1 warning, 1 note")


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "a body": (lambda d: flip(d / "orders-0" / f"{FIRST}.log", 100), "error", f"orders-0/{FIRST}.log", "its CRC"),
    "a length": (lambda d: flip(d / "orders-0" / f"{FIRST}.log", 211), "error", f"orders-0/{FIRST}.log", "at byte 327"),
    "a magic": (
        lambda d: flip(d / "orders-0" / f"{FIRST}.log", 16),
        "error",
        f"orders-0/{FIRST}.log",
        "no batch begins",
    ),
    "a base offset": (
        lambda d: flip(d / "orders-0" / f"{FIRST}.log", 330),
        "error",
        f"orders-0/{FIRST}.log",
        "cannot be",
    ),
    "an epoch": (
        lambda d: flip(d / "orders-0" / f"{FIRST}.log", 13),
        "warning",
        f"orders-0/{FIRST}.log",
        "leader epoch",
    ),
    "an index": (lambda d: flip(d / "orders-0" / f"{FIRST}.index", 2), "warning", f"orders-0/{FIRST}.index", ""),
    "a time index": (lambda d: flip(d / "orders-0" / f"{SECOND}.timeindex", 6), "warning", f"{SECOND}.timeindex", ""),
    "no index": (lambda d: (d / "orders-0" / f"{FIRST}.index").unlink(), "warning", f"{FIRST}.index", "is missing"),
    "a cut index": (
        lambda d: os.truncate(d / "orders-0" / f"{FIRST}.index", 9),
        "warning",
        f"{FIRST}.index",
        "9 bytes",
    ),
    "a txn index": (lambda d: flip(d / "orders-0" / f"{FIRST}.txnindex", 9), "warning", f"{FIRST}.txnindex", ""),
    "no txn index": (
        lambda d: (d / "orders-0" / f"{FIRST}.txnindex").unlink(),
        "warning",
        f"{FIRST}.txnindex",
        "lacks",
    ),
    "a snapshot": (lambda d: flip(d / "orders-0" / f"{SECOND}.snapshot", 30), "warning", f"{SECOND}.snapshot", "CRC"),
    "epochs": (lambda d: flip(d / "orders-0/leader-epoch-checkpoint", 4, 1), "warning", "leader-epoch-checkpoint", ""),
    "no epochs": (
        lambda d: os.truncate(d / "orders-0/leader-epoch-checkpoint", 0),
        "warning",
        "epoch-checkpoint",
        "no ",
    ),
    "a checkpoint": (lambda d: flip(d / "recovery-point-offset-checkpoint", 0), "warning", "recovery-point-", "is not"),
    "no checkpoint": (lambda d: (d / "recovery-point-offset-checkpoint").unlink(), "warning", "recovery-", "missing"),
    "no identity": (lambda d: (d / "meta.properties").unlink(), "warning", "meta.properties", "is missing"),
    "an identity": (
        lambda d: (d / "meta.properties").write_text("version=1\n"),
        "error",
        "meta.properties",
        "version 1",
    ),
    "a topic id": (lambda d: (d / "orders-0/partition.metadata").write_text("x"), "warning", "partition.metadata", ""),
    "a twin": (lambda d: shutil.copytree(d / "orders-0", d / "other-0"), "error", "other-0", "has the topic id"),
    "an id": (lambda d: shutil.copytree(d / "__consumer_offsets-3", d / "orders-1"), "error", "orders-1", "topic id"),
    "a hole": (
        lambda d: (d / "orders-0" / f"{FIRST}.log").unlink(),
        "warning",
        f"{FIRST}.index",
        "belongs to no segment",
    ),
    "a copy": (
        lambda d: shutil.copy(d / "orders-0" / f"{FIRST}.log", d / "orders-0" / f"{10:020d}.log"),
        "error",
        "orders-0/",
        "but the next segment begins at 10",
    ),
    "a deleted one": (lambda d: (d / f"t-0.{'0' * 32}-delete").mkdir(), "note", "-delete", "was deleted"),
    "a leftover": (lambda d: (d / "orders-0" / f"{FIRST}.log.swap").touch(), "note", ".swap", "compaction"),
    "a stranger": (lambda d: (d / "orders-0" / "x").touch(), "note", "orders-0/x", "is not of a log"),
    "old messages": (
        lambda d: (d / "orders-0" / f"{SECOND}.log").write_bytes(
            down_convert(build_batch([NewRecord(1, b"k", b"v")]), 1)
        ),
        "error",
        f"{SECOND}.log",
        "magic 1",
    ),
    "a checkpoint beyond the log": (
        lambda d: (d / "log-start-offset-checkpoint").write_text("0\n1\norders 0 99\n"),
        "error",
        "log-start-offset-checkpoint",
        "says offset 99 of orders-0, which ends at 28",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_is_found(data: Path, run: Run, name: str) -> None:
    damage, severity, path, what = DAMAGES[name]
    damage(data)
    code, found = run()
    assert code == (0 if severity == "note" else 1)
    assert [
        each for each in found[:-1] if each["severity"] == severity and path in each["path"] and what in each["what"]
    ]


@pytest.mark.parametrize("name", [each for each in DAMAGES if DAMAGES[each][1] == "warning"])
def test_repair_makes_anew_what_the_log_tells(data: Path, run: Run, name: str) -> None:
    logs = {path: path.read_bytes() for path in data.glob("*/*.log")}
    DAMAGES[name][0](data)
    left = {path: path.read_bytes() for path in logs if path.exists()}
    before = run()[1][:-1]
    run("--repair", "data")
    after = run()[1][:-1]
    assert {path: path.read_bytes() for path in left} == left
    repairable = [each for each in before if each["repairable"]]
    assert not [each for each in after if each["repairable"] and each in repairable]
    if all(each["repairable"] for each in before if each["severity"] != "note"):
        assert run()[0] == 0


def test_repaired_files_are_those_that_were_there(data: Path, run: Run) -> None:
    """But for how many entries the indexes have, which is the configuration's to say."""
    orders = data / "orders-0"
    same = [orders / f"{FIRST}.txnindex", *orders.glob("*.snapshot"), orders / "leader-epoch-checkpoint"]
    sound = {path: path.read_bytes() for path in same}
    for path in [*same, *orders.glob("*.index"), *orders.glob("*.timeindex")]:
        path.write_bytes(b"garbage")
    assert run("--repair", "data")[0] == 0
    assert {path: path.read_bytes() for path in same} == sound
    assert run()[0] == 0


def test_a_broker_that_runs_is_said_and_not_repaired(data: Path, run: Run) -> None:
    script = (
        "import fcntl, sys; f = open('data/.lock', 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        code, found = run()
        assert code == 0
        assert f"is held by process {holder.pid}" in found[0]["what"]
        assert run("--repair", "data")[0] == 2
        holder.communicate()


def test_a_batch_that_a_running_broker_is_writing_is_no_damage(data: Path, run: Run) -> None:
    dirs = open_dirs(data)
    append(dirs.logs["orders", 0], build_batch([NewRecord(1, b"k", b"v" * 50)]))
    path = max(data.glob("orders-0/*.log"))
    path.write_bytes(path.read_bytes()[:-5])
    code, found = run()
    dirs.close(clean=False)
    # A lock that this process holds itself does not show: it is as after a crash.
    assert code == 1
    assert [each["what"] for each in found if "incomplete batch" in each.get("what", "")]


@pytest.mark.parametrize("arguments", [("nowhere",), ("data/orders-0",), ("--repair", "empty")])
def test_what_is_no_data_directory_is_misuse(run: Run, arguments: tuple[str, ...]) -> None:
    Path("empty").mkdir()
    assert run(*arguments)[0] == 2
    assert list(Path("empty").iterdir()) == []
