"""Finds in a history what a Kafka cluster must not do: Jepsen's Kafka checker (jepsen.tests.kafka), in Python.

From all that is known of offsets the log of each key is put together: what polls returned, whatever became of them, and
what sends were told, as far as they took effect. Without its holes (control records, aborted ones) it gives each value
an index, and everything else is said in indexes. What was read only tells of the log as far as somebody has read, so a
run ends with clients that read every key from its beginning.

| anomaly | meaning |
|---|---|
| inconsistent-offset | two values at one offset |
| duplicate | one value at two offsets |
| lost-write | somebody read past a write that took effect, and nobody ever read that one |
| unseen | acknowledged, and never read until the end |
| vanished | acknowledged or read by somebody, and not there when all was read at the end |
| aborted-read | a value was read whose send has certainly not happened (G1a) |
| precommitted-read | a transaction read what it had itself sent, before it was committed |
| poll-skip, nonmonotonic-poll | one consumer's next poll left something out, or went back |
| int-poll-skip, int-nonmonotonic-poll | the same inside one operation |
| nonmonotonic-send, int-nonmonotonic-send | a producer's sends lie in the log in another order |
| int-send-skip | other writes lie between the sends of one transaction: allowed |
| G0, G1c, ... | cycles of transactions, see cycles.py |

Jepsen has no `vanished`: what has been read once counts there as seen, even if an election then takes it back. Unlike
Jepsen's, nonmonotonic-send looks at acknowledged sends alone, because clients here have several in flight: one
that an idempotent producer has given up may still come later than its successor. What a subscribed consumer is
given next is up to its group, so poll-skip and nonmonotonic-poll are asked of those that assign themselves. A key that
is assigned anew begins anew.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.fault.cluster.cycles import find_cycles
from tests.fault.cluster.history import READ_ALL, Op, Poll, Send

# Writes of transactions are interleaved in Kafka: neither between each other nor around others are they isolated.
ALLOWED = frozenset({"int-send-skip", "G0", "G1c-ww"})

Anomaly = Mapping[str, Any]
Anomalies = Mapping[str, Sequence[Anomaly]]


class Order(NamedTuple):
    """The log of a key without its holes."""

    values: list[set[int]]
    index_of: Mapping[int, int]
    first_index: Mapping[int, int]
    offsets: list[int]

    def between(self, before: int, after: int) -> int | None:
        """How far the second value lies behind the first; None where that is not known."""
        first, second = self.index_of.get(before), self.index_of.get(after)
        return None if first is None or second is None else second - first


class Analysis:
    """What is known of a history as a whole."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.read: dict[int, set[int]] = {}
        self.writers: dict[tuple[int, int], Op] = {}
        for op in ops:
            self.writers.update(((send.key, send.value), op) for each in op.sends().values() for send in each)
            if op.type == "ok":
                for key, records in op.polled().items():
                    self.read.setdefault(key, set()).update(value for _, value in records)
        self.orders = {key: _order(log) for key, log in self._logs().items()}

    def took_effect(self, op: Op) -> bool:
        """Whether it is certain that an operation has happened: it was acknowledged, or somebody has read of it."""
        if op.type != "info":
            return op.type == "ok"
        return any(send.value in self.read.get(key, ()) for key, each in op.sends().items() for send in each)

    def _logs(self) -> dict[int, dict[int, set[int]]]:
        logs: dict[int, dict[int, set[int]]] = {}
        for op in self.ops:
            happened = self.took_effect(op)
            for micro in op.micros:
                if isinstance(micro, Poll):
                    for key, records in micro.records.items():
                        for offset, value in records:
                            logs.setdefault(key, {}).setdefault(offset, set()).add(value)
                elif happened and micro.offset is not None:
                    logs.setdefault(micro.key, {}).setdefault(micro.offset, set()).add(micro.value)
        return logs


def _order(log: Mapping[int, set[int]]) -> Order:
    offsets = sorted(log)
    values = [log[offset] for offset in offsets]
    first_index: dict[int, int] = {}
    index_of: dict[int, int] = {}
    for index, at_offset in enumerate(values):
        for value in at_offset:
            first_index.setdefault(value, index)
            index_of[value] = index
    return Order(values, index_of, first_index, offsets)


def check(ops: Sequence[Op]) -> dict[str, list[Anomaly]]:
    """All anomalies by name; those of ALLOWED are no mistakes."""
    analysis = Analysis(ops)
    found: dict[str, list[Anomaly]] = {}
    for search in SEARCHES:
        for name, anomaly in search(analysis):
            found.setdefault(name, []).append(anomaly)
    for name, cycle in find_cycles(ops, analysis.took_effect, analysis.writers, analysis.orders):
        found.setdefault(name, []).append({"ops": [_shown(op) for op in cycle]})
    return found


def forbidden(anomalies: Anomalies) -> dict[str, Sequence[Anomaly]]:
    """Those that are mistakes of the cluster."""
    return {name: cases for name, cases in anomalies.items() if name not in ALLOWED}


Found = Iterator[tuple[str, Anomaly]]


def _offsets(analysis: Analysis) -> Found:
    for key, order in analysis.orders.items():
        for offset, values in zip(order.offsets, order.values, strict=True):
            if len(values) > 1:
                yield "inconsistent-offset", {"key": key, "offset": offset, "values": sorted(values)}
        counts = Counter(value for values in order.values for value in values)
        for value, count in counts.items():
            if count > 1:
                pairs = zip(order.offsets, order.values, strict=True)
                yield "duplicate", {"key": key, "value": value, "offsets": [at for at, each in pairs if value in each]}


def _lost_writes(analysis: Analysis) -> Found:
    for key, read in analysis.read.items():
        order = analysis.orders[key]
        bound = max((order.first_index.get(value, -1) for value in read), default=-1)
        for value, index in order.index_of.items():
            writer = analysis.writers.get((key, value))
            if index <= bound and value not in read and writer is not None and analysis.took_effect(writer):
                yield (
                    "lost-write",
                    {
                        "key": key,
                        "value": value,
                        "offset": order.offsets[index],
                        "read_until": order.offsets[bound],
                        "writer": _shown(writer),
                    },
                )


def _unseen(analysis: Analysis) -> Found:
    for (key, value), op in analysis.writers.items():
        if op.type == "ok" and value not in analysis.read.get(key, ()):
            yield "unseen", {"key": key, "value": value, "writer": _shown(op)}


def _vanished(analysis: Analysis) -> Found:
    at_the_end: dict[int, set[int]] = {}
    for op in analysis.ops:
        if op.f == READ_ALL:
            for key, records in op.polled().items():
                at_the_end.setdefault(key, set()).update(value for _, value in records)
    if not at_the_end:
        return
    for (key, value), op in analysis.writers.items():
        is_expected = op.type == "ok" or value in analysis.read.get(key, ())
        if is_expected and value not in at_the_end.get(key, ()):
            yield "vanished", {"key": key, "value": value, "writer": _shown(op)}


def _dirty_reads(analysis: Analysis) -> Found:
    for op in analysis.ops:
        own = {(key, send.value) for key, each in op.sends().items() for send in each}
        for key, records in op.polled().items():
            for offset, value in records:
                if (key, value) in own:
                    yield "precommitted-read", {"key": key, "offset": offset, "value": value, "op": _shown(op)}
                    continue
                writer = analysis.writers.get((key, value))
                if op.type == "ok" and (writer is None or writer.type == "fail"):
                    case = {"key": key, "offset": offset, "value": value, "reader": _shown(op)}
                    yield "aborted-read", {**case, "writer": writer and _shown(writer)}


def _inside_operations(analysis: Analysis) -> Found:
    for op in analysis.ops:
        for key, records in op.polled().items():
            if key not in op.rebalanced:
                values = [value for _, value in records]
                yield from _steps("int-poll-skip", "int-nonmonotonic-poll", analysis, key, values, op)
        for key, sends in op.sends().items():
            values = [send.value for send in sends]
            yield from _steps("int-send-skip", "int-nonmonotonic-send", analysis, key, values, op)


def _steps(skip: str, nonmonotonic: str, analysis: Analysis, key: int, values: Sequence[int], op: Op) -> Found:
    for before, after in pairwise(values):
        step = _step(skip, nonmonotonic, analysis.orders.get(key), before, after)
        if step is not None:
            yield step, {"key": key, "values": [before, after], "op": _shown(op)}


def _step(skip: str, nonmonotonic: str, order: Order | None, before: int, after: int) -> str | None:
    """The name of what is wrong with one value following another; a distance that is not known is taken for right."""
    distance = order.between(before, after) if order else None
    if distance is None or distance == 1:
        return None
    return skip if distance > 1 else nonmonotonic


def _between_polls(analysis: Analysis) -> Found:
    subscribed = {op.process for op in analysis.ops if op.f == "subscribe"}
    last: dict[int, dict[int, tuple[int, Op]]] = {}
    for op in analysis.ops:
        if op.process in subscribed:
            continue
        own = last.setdefault(op.process, {})
        if op.f == "assign" and op.type != "fail":
            last[op.process] = {key: own[key] for key in op.keys & own.keys()}
            continue
        for key, records in op.polled().items():
            if key in own and records:
                before, earlier = own[key]
                step = _step("poll-skip", "nonmonotonic-poll", analysis.orders.get(key), before, records[0][1])
                if step is not None:
                    values = [before, records[0][1]]
                    yield step, {"key": key, "values": values, "ops": [_shown(earlier), _shown(op)]}
            if op.type == "ok" and records:
                own[key] = records[-1][1], op


def _between_sends(analysis: Analysis) -> Found:
    last: dict[tuple[int, int], Send] = {}
    for op in analysis.ops:
        if op.type != "ok":
            continue
        for key, sends in op.sends().items():
            before = last.get((op.process, key))
            order = analysis.orders.get(key)
            if before is not None and _step("", "back", order, before.value, sends[0].value):
                yield "nonmonotonic-send", {"key": key, "values": [before.value, sends[0].value], "op": _shown(op)}
            last[op.process, key] = sends[-1]


SEARCHES = (
    _offsets,
    _lost_writes,
    _unseen,
    _vanished,
    _dirty_reads,
    _inside_operations,
    _between_polls,
    _between_sends,
)


def _shown(op: Op) -> dict[str, Any]:
    """An operation without the bulk of what it polled."""
    sends = [list(send) for each in op.sends().values() for send in each]
    shown: dict[str, Any] = {"process": op.process, "type": op.type, "f": op.f, "sends": sends, "error": op.error}
    shown["polled"] = {key: [records[0], records[-1]] for key, records in op.polled().items() if records}
    return {**shown, "invoked_ns": op.invoked_ns, "completed_ns": op.completed_ns}
