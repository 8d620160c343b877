"""What clients did to a cluster and what they were told: a history, one JSON object a line.

A line tells of an invocation or of its outcome:

    {"time_ns": 5, "process": 3, "op": 8, "type": "invoke", "f": "txn", "micros": [["send", 2, 17, null], ["poll", {}]]}
    {"time_ns": 9, "process": 3, "op": 8, "type": "ok", "f": "txn",
     "micros": [["send", 2, 17, 40], ["poll", {"1": [[7, 12]]}]]}

A key is a partition of some topic. A send carries its value, then the offset, null where the broker did not tell it; a
poll carries [offset, value] pairs by key. Times are of CLOCK_MONOTONIC, which all processes of a machine share.

Outcomes are Jepsen's: `ok`, `fail` (it has certainly not happened), `info` (nobody knows). A process is one producer
and one consumer, and does one thing at a time, but for sends: several may be in flight, in the order of their numbers.
After an `info` the client goes on as another process. What is polled at the end, by fresh clients from the beginning of
every key, is `read-all` instead of `poll`.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

NEMESIS = -1
READ_ALL = "read-all"


class Send(NamedTuple):
    """One value to one key; the offset is None as long as it is not known."""

    key: int
    value: int
    offset: int | None = None


class Poll(NamedTuple):
    """What one poll returned: (offset, value) pairs by key, in the order in which they came."""

    records: Mapping[int, Sequence[tuple[int, int]]]


Micro = Send | Poll


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """An operation with its outcome. `keys` are those of an assign or subscribe; `rebalanced` those that the group took
    or gave while it ran.
    """

    process: int
    type: str
    f: str
    micros: tuple[Micro, ...] = ()
    keys: frozenset[int] = frozenset()
    rebalanced: frozenset[int] = frozenset()
    invoked_ns: int = 0
    completed_ns: int = 0
    error: str = ""

    def sends(self) -> dict[int, list[Send]]:
        """The sends by key."""
        found: dict[int, list[Send]] = {}
        for micro in self.micros:
            if isinstance(micro, Send):
                found.setdefault(micro.key, []).append(micro)
        return found

    def polled(self) -> dict[int, list[tuple[int, int]]]:
        """All (offset, value) pairs by key, of all polls in order."""
        found: dict[int, list[tuple[int, int]]] = {}
        for micro in self.micros:
            if isinstance(micro, Poll):
                for key, records in micro.records.items():
                    found.setdefault(key, []).extend(records)
        return found


class HistoryWriter:
    """Appends lines to a file; each is written whole before the next step is taken, so a kill leaves no half of one."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)
        self._ops = 0

    def invoke(self, process: int, f: str, micros: Sequence[Micro] = (), **more: Any) -> int:
        """The number of the operation, which its outcome repeats."""
        self._ops += 1
        self._write(process, self._ops, "invoke", f, micros, more)
        return self._ops

    def complete(self, process: int, op: int, type_: str, f: str, micros: Sequence[Micro] = (), **more: Any) -> None:
        self._write(process, op, type_, f, micros, more)

    def _write(
        self, process: int, op: int, type_: str, f: str, micros: Sequence[Micro], more: Mapping[str, Any]
    ) -> None:
        line: dict[str, Any] = {"time_ns": time.monotonic_ns(), "process": process, "op": op, "type": type_, "f": f}
        if micros:
            line["micros"] = [_micro_to_json(micro) for micro in micros]
        line.update((name, value) for name, value in more.items() if value)
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def close(self) -> None:
        self._file.close()


def _micro_to_json(micro: Micro) -> list[Any]:
    if isinstance(micro, Send):
        return ["send", micro.key, micro.value, micro.offset]
    return ["poll", micro.records]


def _micro_from_json(micro: list[Any]) -> Micro:
    if micro[0] == "send":
        return Send(*micro[1:])
    records = micro[1] if len(micro) > 1 else {}
    return Poll({int(key): [(offset, value) for offset, value in pairs] for key, pairs in records.items()})


def merged(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The lines of several files in the order of their times."""
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: line["time_ns"])


def operations(lines: Iterable[Mapping[str, Any]]) -> list[Op]:
    """Pairs invocations with outcomes, in the order of the outcomes; without one, as the client died, it is `info`."""
    pending: dict[tuple[int, int], Mapping[str, Any]] = {}
    ops: list[Op] = []
    last_ns = 0
    for line in lines:
        last_ns = line["time_ns"]
        if line["process"] == NEMESIS:
            continue
        op = line["process"], line["op"]
        if line["type"] == "invoke":
            pending[op] = line
        else:
            ops.append(_op(line, pending.pop(op)["time_ns"], last_ns))
    ops.extend(_op({**line, "type": "info"}, line["time_ns"], last_ns) for line in pending.values())
    return ops


def _op(line: Mapping[str, Any], invoked_ns: int, completed_ns: int) -> Op:
    return Op(
        process=line["process"],
        type=line["type"],
        f=line["f"],
        micros=tuple(_micro_from_json(micro) for micro in line.get("micros", ())),
        keys=frozenset(line.get("keys", ())),
        rebalanced=frozenset(line.get("rebalanced", ())),
        invoked_ns=invoked_ns,
        completed_ns=completed_ns,
        error=line.get("error", ""),
    )
