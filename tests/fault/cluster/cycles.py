"""Cycles of operations: each must have come before the next, and the last before the first.

Edges are Jepsen's: ww from the writer of a value to the writer of the next one in the log, wr from a writer to each
reader, process from one operation of a process to its next, realtime from an operation to whatever was invoked after
it was over. What has certainly not taken effect has no edges.

| cycle | edges | |
|---|---|---|
| G0 | ww | allowed: Kafka interleaves the writes of transactions |
| G1c-ww | ww, wr | allowed, for the same reason |
| G1c | wr | |
| G1c-process | wr, process | |
| G1c-realtime | wr, process, realtime | somebody saw a transaction before it was committed, or after it was undone |

rw edges (anti-dependencies) are left out, as in Jepsen's checker: a consumer chooses what it has not read yet.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tests.fault.cluster.history import Op

Graph = dict[Hashable, list[Hashable]]


class Instant(NamedTuple):
    """The moment at which the n-th operation was over: a node that orders operations by time with few edges."""

    number: int


def find_cycles(
    ops: Sequence[Op],
    took_effect: Callable[[Op], bool],
    writers: Mapping[tuple[int, int], Op],
    orders: Mapping[int, Any],
) -> Iterator[tuple[str, list[Op]]]:
    """The name of each kind of cycle and its operations; a cycle is told once, by its strictest name."""
    happened = [op for op in ops if op.micros and took_effect(op)]
    ww = _write_write(orders, writers, took_effect)
    wr = _write_read(happened, writers, took_effect)
    process, realtime = _process(happened), _realtime(happened)
    # What is allowed is searched apart, so that it hides nothing: transactions in a G0 may be in a G1c too.
    for searches in (
        (("G0", (ww,)), ("G1c-ww", (ww, wr))),
        (("G1c", (wr,)), ("G1c-process", (wr, process)), ("G1c-realtime", (wr, process, realtime))),
    ):
        told: set[Op] = set()
        for name, edges in searches:
            for cycle in _cycles(edges, told):
                yield name, cycle


def _write_write(
    orders: Mapping[int, Any], writers: Mapping[tuple[int, int], Op], took_effect: Callable[[Op], bool]
) -> Graph:
    graph: Graph = {}
    for key, order in orders.items():
        # Where two values lie at one offset the order is not known: that is told as an anomaly of its own.
        found = [writers.get((key, min(values))) for values in order.values]
        for before, after in pairwise(found):
            if before and after and before is not after and took_effect(before) and took_effect(after):
                graph.setdefault(before, []).append(after)
    return graph


def _write_read(
    happened: Sequence[Op], writers: Mapping[tuple[int, int], Op], took_effect: Callable[[Op], bool]
) -> Graph:
    graph: Graph = {}
    for reader in happened:
        found = {writers.get((key, value)) for key, records in reader.polled().items() for _, value in records}
        for writer in found:
            if writer is not None and writer is not reader and took_effect(writer):
                graph.setdefault(writer, []).append(reader)
    return graph


def _process(happened: Sequence[Op]) -> Graph:
    graph: Graph = {}
    last: dict[int, Op] = {}
    for op in sorted(happened, key=lambda op: op.invoked_ns):
        if op.process in last and last[op.process].completed_ns <= op.invoked_ns:
            graph.setdefault(last[op.process], []).append(op)
        last[op.process] = op
    return graph


def _realtime(happened: Sequence[Op]) -> Graph:
    """An operation without an outcome is never over."""
    over = sorted((op for op in happened if op.type == "ok"), key=lambda op: op.completed_ns)
    graph: Graph = {op: [Instant(number)] for number, op in enumerate(over)}
    for number in range(len(over) - 1):
        graph[Instant(number)] = [Instant(number + 1)]
    number = -1
    for op in sorted(happened, key=lambda op: op.invoked_ns):
        while number + 1 < len(over) and over[number + 1].completed_ns < op.invoked_ns:
            number += 1
        if number >= 0:
            graph.setdefault(Instant(number), []).append(op)
    return graph


def _cycles(edges: Sequence[Graph], told: set[Op]) -> Iterator[list[Op]]:
    graph: Graph = {}
    for each in edges:
        for node, successors in each.items():
            graph.setdefault(node, []).extend(successors)
    for component in _components(graph):
        found = [node for node in component if isinstance(node, Op)]
        if len(component) > 1 and not told.intersection(found):
            told.update(found)
            yield [node for node in _shortest_cycle(graph, component) if isinstance(node, Op)]


def _shortest_cycle(graph: Graph, component: Sequence[Hashable]) -> list[Hashable]:
    """A shortest way from one of its operations back to that one."""
    inside = set(component)
    start = next(node for node in component if isinstance(node, Op))
    came_from: dict[Hashable, Hashable] = {}
    waiting = [start]
    for node in waiting:
        for successor in graph.get(node, ()):
            if successor is start or successor == start:
                way = [node]
                while way[-1] is not start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if successor in inside and successor not in came_from:
                came_from[successor] = node
                waiting.append(successor)
    raise AssertionError("a strongly connected component has a cycle through each of its nodes")


def _components(graph: Graph) -> Iterator[list[Hashable]]:
    """The strongly connected components: Tarjan's algorithm, without recursion."""
    index: dict[Hashable, int] = {}
    low: dict[Hashable, int] = {}
    stack: list[Hashable] = []
    on_stack: set[Hashable] = set()
    for root in list(graph):
        if root in index:
            continue
        work = [(root, iter(graph.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(graph.get(successor, ()))))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component: list[Hashable] = []
                    while not component or component[-1] is not node:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    yield component
