"""The table of states against events is whole, ARCHITECTURE.md draws it, and the transcripts go through all of it."""

import re
from pathlib import Path

import pytest

from kpy.errors import ErrorCode
from kpy.txn.transaction import MAX_EPOCH, TRANSITIONS, Happens, Transaction, TransactionState, end_of_transaction

ROOT = Path(__file__).parents[3]
NEVER = {
    Happens.MARKERS_WRITTEN: {each for each in TransactionState if not each.is_prepared},
    Happens.TIMEOUT: set(TransactionState) - {TransactionState.ONGOING},
    Happens.EXPIRE: {TransactionState.ONGOING, TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT},
}
"""What cannot happen, and in which states."""


def drawing() -> str:
    """Which state leads to which, and by what, in the order of the table."""
    lines: list[str] = []
    for state, row in TRANSITIONS.items():
        by_next: dict[str, list[str]] = {}
        for happens, follows in row.items():
            if isinstance(follows, TransactionState):
                by_next.setdefault(follows.shown, []).append(happens.value)
            elif follows is None:
                by_next.setdefault("(forgotten)", []).append(happens.value)
        lines += [f"{state.shown:<15}-> {shown:<15}{', '.join(why)}" for shown, why in by_next.items()]
    return "\n".join(lines)


def test_every_event_has_an_answer_in_every_state_it_can_happen_in() -> None:
    for state in TransactionState:
        missing = {each for each in Happens if each not in TRANSITIONS[state]}
        assert missing == {each for each in Happens if state in NEVER.get(each, ())}


def test_what_is_decided_is_carried_out() -> None:
    for decided, complete in (
        (TransactionState.PREPARE_COMMIT, TransactionState.COMPLETE_COMMIT),
        (TransactionState.PREPARE_ABORT, TransactionState.COMPLETE_ABORT),
    ):
        assert {each for each in TRANSITIONS[decided].values() if isinstance(each, TransactionState)} == {complete}


def test_the_drawing_is_the_table() -> None:
    assert f"```\n{drawing()}\n```" in (ROOT / "ARCHITECTURE.md").read_text()


def test_the_transcripts_go_through_every_transition() -> None:
    texts = [path.read_text() for path in (ROOT / "tests/transcripts/txn").glob("*.txt")]
    seen: set[tuple[str, str]] = set()
    for text in texts:
        states = {}
        for name, state in re.findall(r"append ([\w-]+): (\w+) of", text):
            seen.add((states.get(name, "Empty"), state))
            states[name] = state
    expected = {
        (state.shown, follows.shown)
        for state, row in TRANSITIONS.items()
        for follows in row.values()
        if isinstance(follows, TransactionState)
    }
    assert expected <= seen


def transaction(epoch: int, producer_id: int = 7, **fields: int) -> Transaction:
    ongoing = TransactionState.ONGOING
    return Transaction("tx", producer_id, epoch, 1, ongoing, frozenset({("t", 0)}), 0, 0, **fields)


@pytest.mark.parametrize(
    ("found", "producer", "expected"),
    [
        (transaction(5), (7, 5), Happens.COMMIT_V2),
        (transaction(5), (7, 4), Happens.LATE_COMMIT_V2),
        (transaction(5), (7, 3), ErrorCode.PRODUCER_FENCED),
        (transaction(5), (7, 6), ErrorCode.PRODUCER_FENCED),
        (transaction(5), (8, 5), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (transaction(0, 8, previous_producer_id=7), (7, MAX_EPOCH - 1), Happens.LATE_COMMIT_V2),
        (transaction(0, 8, previous_producer_id=7), (7, 3), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (transaction(1, 8, previous_producer_id=7), (7, MAX_EPOCH - 1), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
        (transaction(MAX_EPOCH, next_producer_id=8), (7, MAX_EPOCH - 1), Happens.LATE_COMMIT_V2),
        (transaction(MAX_EPOCH), (7, MAX_EPOCH - 1), ErrorCode.PRODUCER_FENCED),
    ],
)
def test_who_ends_a_transaction_of_version_2(found: Transaction, producer: tuple[int, int], expected: object) -> None:
    """KIP-890."""
    assert end_of_transaction(found, *producer, commits=True, version=2) == expected


@pytest.mark.parametrize(
    ("producer", "expected"),
    [
        ((7, 5), Happens.ABORT),
        ((7, 4), ErrorCode.PRODUCER_FENCED),
        ((7, 6), ErrorCode.PRODUCER_FENCED),
        ((8, 5), ErrorCode.INVALID_PRODUCER_ID_MAPPING),
    ],
)
def test_who_ends_a_transaction_before(producer: tuple[int, int], expected: object) -> None:
    assert end_of_transaction(transaction(5), *producer, commits=False, version=0) == expected
