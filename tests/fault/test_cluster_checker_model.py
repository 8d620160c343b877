"""Histories of a cluster that makes no mistake pass the checker; with one mistake put in, it is found by its name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.fault.cluster.checker import check, forbidden
from tests.fault.cluster.history import READ_ALL, Op, Poll, Send
from tests.fault.cluster.model import Model

# What a mistake is put into: None where a history offers no place for it.
Mutation = Callable[[list[Op], Random], list[Op] | None]


def without_value(ops: Sequence[Op], key: int, value: int) -> list[Op]:
    """The same history, but nobody has read this value."""

    def without(op: Op) -> Op:
        micros = tuple(
            Poll(
                {
                    at: [each for each in records if (at, each[1]) != (key, value)]
                    for at, records in micro.records.items()
                }
            )
            if isinstance(micro, Poll)
            else micro
            for micro in op.micros
        )
        return replace(op, micros=micros)

    return [without(op) for op in ops]


def acknowledged(ops: Sequence[Op]) -> dict[int, list[Send]]:
    """The acknowledged sends of each key in the order of the log."""
    found: dict[int, list[Send]] = {}
    for op in ops:
        if op.type == "ok":
            for key, sends in op.sends().items():
                found.setdefault(key, []).extend(sends)
    return {key: sorted(sends, key=lambda send: send.offset or 0) for key, sends in found.items()}


def nobody_reads_one(ops: list[Op], random: Random) -> list[Op] | None:
    sends = [send for each in acknowledged(ops).values() for send in each[:-1]]
    return without_value(ops, *random.choice(sends)[:2]) if sends else None


def nobody_reads_the_end(ops: list[Op], random: Random) -> list[Op] | None:
    ends = [each[-1] for each in acknowledged(ops).values()]
    return without_value(ops, *random.choice(ends)[:2]) if ends else None


def one_is_gone_at_the_end(ops: list[Op], random: Random) -> list[Op] | None:
    sends = [(key, send.value) for key, each in acknowledged(ops).items() for send in each]
    if not sends:
        return None
    gone = random.choice(sends)
    return [without_value([op], *gone)[0] if op.f == READ_ALL else op for op in ops]


def polls_of(ops: Sequence[Op], least: int) -> list[tuple[int, int]]:
    """Where in a history an acknowledged operation read so many records of a key: positions and keys."""
    return [
        (position, key)
        for position, op in enumerate(ops)
        if op.type == "ok"
        for key, records in op.polled().items()
        if len(records) >= least
    ]


def change_poll(
    ops: list[Op],
    random: Random,
    places: Sequence[tuple[int, int]],
    change: Callable[[list[tuple[int, int]]], list[tuple[int, int]]],
) -> list[Op] | None:
    """Changes what one operation has read of one key."""
    if not places:
        return None
    position, key = random.choice(places)
    op = ops[position]
    sends = tuple(micro for micro in op.micros if isinstance(micro, Send))
    changed = replace(op, micros=(*sends, Poll({**op.polled(), key: change(op.polled()[key])})))
    return [*ops[:position], changed, *ops[position + 1 :]]


def polls_of_acknowledged(ops: Sequence[Op], least: int, index: int) -> list[tuple[int, int]]:
    """The same where one of those records is known to be there, whoever else reads it."""
    sent = {(key, send.value) for key, sends in acknowledged(ops).items() for send in sends}
    return [(at, key) for at, key in polls_of(ops, least) if (key, ops[at].polled()[key][index][1]) in sent]


def a_poll_leaves_out(ops: list[Op], random: Random) -> list[Op] | None:
    places = polls_of_acknowledged(ops, 3, 1)
    return change_poll(ops, random, places, lambda records: [records[0], *records[2:]])


def a_poll_is_reversed(ops: list[Op], random: Random) -> list[Op] | None:
    return change_poll(ops, random, polls_of(ops, 2), lambda records: records[::-1])


def a_poll_repeats_at_another_offset(ops: list[Op], random: Random) -> list[Op] | None:
    return change_poll(
        ops, random, polls_of(ops, 1), lambda records: [*records, (records[-1][0] + 1000, records[0][1])]
    )


def a_poll_reads_another_value(ops: list[Op], random: Random) -> list[Op] | None:
    places = polls_of_acknowledged(ops, 1, 0)
    return change_poll(ops, random, places, lambda records: [(records[0][0], -1), *records[1:]])


def a_poll_is_repeated(ops: list[Op], random: Random) -> list[Op] | None:
    places = polls_of(ops, 1)
    if not places:
        return None
    position, _ = random.choice(places)
    only_polls = tuple(micro for micro in ops[position].micros if isinstance(micro, Poll))
    return [*ops[: position + 1], replace(ops[position], micros=only_polls), *ops[position + 1 :]]


def a_consumer_skips(ops: list[Op], random: Random) -> list[Op] | None:
    """One operation is made two, without what lies between them."""
    places = polls_of_acknowledged(ops, 3, 1)
    if not places:
        return None
    position, key = random.choice(places)
    op, records = ops[position], ops[position].polled()[key]
    parts = [replace(op, micros=(Poll({key: part}),)) for part in (records[:1], records[2:])]
    return [*ops[:position], *parts, *ops[position + 1 :]]


def what_was_read_has_failed(ops: list[Op], random: Random) -> list[Op] | None:
    places = [position for position, op in enumerate(ops) if op.type == "ok" and op.sends()]
    if not places:
        return None
    position = random.choice(places)
    return [*ops[:position], replace(ops[position], type="fail"), *ops[position + 1 :]]


def a_transaction_reads_itself(ops: list[Op], random: Random) -> list[Op] | None:
    places = [position for position, op in enumerate(ops) if op.f == "txn" and op.type == "ok" and op.sends()]
    if not places:
        return None
    position = random.choice(places)
    key, [send, *_] = random.choice(sorted(ops[position].sends().items()))
    read = Poll({key: [(send.offset or 0, send.value)]})
    return [*ops[:position], replace(ops[position], micros=(*ops[position].micros, read)), *ops[position + 1 :]]


def two_sends_change_places(ops: list[Op], random: Random) -> list[Op] | None:
    alone = [position for position, op in enumerate(ops) if op.type == "ok" and op.f == "send"]
    pairs = [
        (first, second)
        for first, second in pairwise(alone)
        if ops[first].process == ops[second].process and ops[first].sends().keys() == ops[second].sends().keys()
    ]
    if not pairs:
        return None
    first, second = random.choice(pairs)
    changed = list(ops)
    changed[first] = replace(ops[first], micros=ops[second].micros)
    changed[second] = replace(ops[second], micros=ops[first].micros)
    return changed


MISTAKES: Mapping[Mutation, str] = {
    nobody_reads_one: "lost-write",
    nobody_reads_the_end: "unseen",
    one_is_gone_at_the_end: "vanished",
    a_poll_leaves_out: "int-poll-skip",
    a_poll_is_reversed: "int-nonmonotonic-poll",
    a_poll_repeats_at_another_offset: "duplicate",
    a_poll_reads_another_value: "inconsistent-offset",
    a_poll_is_repeated: "nonmonotonic-poll",
    a_consumer_skips: "poll-skip",
    what_was_read_has_failed: "aborted-read",
    a_transaction_reads_itself: "precommitted-read",
    two_sends_change_places: "nonmonotonic-send",
}


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_cluster_without_mistakes_passes(seed: int) -> None:
    assert not forbidden(check(Model(Random(seed)).run()))


@pytest.mark.parametrize("mutation", MISTAKES, ids=lambda mutation: mutation.__name__)
@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_mistake_is_found(mutation: Mutation, seed: int) -> None:
    random = Random(seed)
    mutated = mutation(Model(random).run(), random)
    assume(mutated is not None)
    assert mutated is not None
    assert MISTAKES[mutation] in forbidden(check(mutated))
