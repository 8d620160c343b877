"""The checker of cluster histories finds each anomaly in one written by hand, and none in those that are right."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fault.cluster.checker import check, forbidden
from tests.fault.cluster.history import READ_ALL, HistoryWriter, Micro, Op, Poll, Send, merged, operations


class History:
    """Operations one after the other, each over before the next is begun unless a time says otherwise."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def add(
        self,
        process: int,
        *micros: Micro,
        type_: str = "ok",
        f: str = "txn",
        keys: Iterable[int] = (),
        rebalanced: Iterable[int] = (),
        time: tuple[int, int] | None = None,
    ) -> None:
        now = 10 * len(self.ops)
        invoked, completed = time or (now, now + 5)
        sets = frozenset(keys), frozenset(rebalanced)
        self.ops.append(Op(process, type_, f, micros, *sets, invoked_ns=invoked, completed_ns=completed))

    def found(self) -> set[str]:
        return set(check(self.ops))


@pytest.fixture
def history() -> History:
    return History()


def sent(process: int, history: History, *values: tuple[int, int], key: int = 0, type_: str = "ok") -> None:
    for offset, value in values:
        history.add(process, Send(key, value, offset), type_=type_, f="send")


def polled(*records: tuple[int, int], key: int = 0) -> Poll:
    return Poll({key: list(records)})


def test_a_history_in_order_has_no_anomaly(history: History) -> None:
    sent(0, history, (0, 10), (1, 11), (3, 12))
    history.add(1, f="assign", keys=[0])
    history.add(1, polled((0, 10)), f="poll")
    history.add(1, polled((1, 11), (3, 12)), f="poll")
    assert history.found() == set()


def test_an_empty_history_has_no_anomaly(history: History) -> None:
    assert history.found() == set()


def test_a_write_that_a_reader_passed_over_is_lost(history: History) -> None:
    sent(0, history, (0, 10), (1, 11), (2, 12))
    history.add(1, polled((0, 10)), f="poll")
    history.add(2, polled((2, 12)), f="poll")
    assert history.found() == {"lost-write", "unseen"}


def test_a_write_behind_what_was_read_is_unseen_and_not_lost(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == {"unseen"}


def test_an_acknowledged_write_whose_offset_nobody_knows_is_unseen(history: History) -> None:
    history.add(0, Send(0, 10, None), f="send")
    assert history.found() == {"unseen"}


def test_a_write_whose_offset_another_value_has_taken_is_lost(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    sent(2, history, (1, 12), (2, 13))
    history.add(1, polled((0, 10), (1, 12), (2, 13)), f="poll")
    assert history.found() == {"inconsistent-offset", "lost-write", "unseen"}


@pytest.mark.parametrize("type_", ["ok", "info"])
def test_a_write_that_was_read_once_and_is_gone_at_the_end_has_vanished(history: History, type_: str) -> None:
    sent(0, history, (0, 10), (1, 11))
    sent(1, history, (2, 12), type_=type_)
    history.add(2, polled((0, 10), (1, 11), (2, 12)), f="poll")
    history.add(3, polled((0, 10), (1, 11)), f=READ_ALL)
    assert history.found() == {"vanished"}
    history.add(4, polled((0, 10), (1, 11), (2, 12)), f=READ_ALL)
    assert history.found() == set()


@pytest.mark.parametrize("type_", ["fail", "info"])
def test_a_write_without_acknowledgement_may_be_missing(history: History, type_: str) -> None:
    sent(0, history, (0, 10))
    sent(0, history, (1, 11), type_=type_)
    sent(1, history, (2, 12))
    history.add(2, polled((0, 10), (2, 12)), f="poll")
    assert history.found() == set()


def test_a_write_of_unknown_outcome_is_lost_if_the_rest_of_its_transaction_was_read(history: History) -> None:
    history.add(0, Send(0, 10, 0), Send(1, 20, 0), type_="info")
    sent(1, history, (1, 21), key=1)
    history.add(2, Poll({0: [(0, 10)], 1: [(1, 21)]}), f="poll")
    assert history.found() == {"lost-write"}


def test_a_value_at_two_offsets_is_a_duplicate(history: History) -> None:
    sent(0, history, (0, 10))
    history.add(1, polled((0, 10), (1, 10)), f="poll")
    assert history.found() == {"duplicate", "int-nonmonotonic-poll"}


def test_two_values_at_one_offset_are_inconsistent(history: History) -> None:
    sent(0, history, (0, 10), (0, 11))
    history.add(1, polled((0, 10)), f="poll")
    history.add(2, polled((0, 11)), f="poll")
    assert history.found() == {"inconsistent-offset", "nonmonotonic-send"}


def test_a_value_of_a_transaction_that_was_undone_is_an_aborted_read(history: History) -> None:
    history.add(0, Send(0, 10), type_="fail")
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == {"aborted-read"}


def test_a_value_that_nobody_sent_is_an_aborted_read(history: History) -> None:
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == {"aborted-read"}


def test_a_transaction_that_reads_itself_is_a_precommitted_read(history: History) -> None:
    history.add(0, Send(0, 10, 0), polled((0, 10)))
    assert history.found() == {"precommitted-read"}


def test_a_poll_that_leaves_something_out_is_a_skip(history: History) -> None:
    sent(0, history, (0, 10), (1, 11), (2, 12))
    history.add(1, f="assign", keys=[0])
    history.add(1, polled((0, 10)), f="poll")
    history.add(1, polled((2, 12)), f="poll")
    history.add(2, polled((0, 10), (1, 11), (2, 12)), f="poll")
    assert history.found() == {"poll-skip"}


def test_a_poll_that_goes_back_is_nonmonotonic(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, polled((0, 10), (1, 11)), f="poll")
    history.add(1, polled((1, 11)), f="poll")
    assert history.found() == {"nonmonotonic-poll"}


def test_a_key_that_is_assigned_anew_begins_anew(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, f="assign", keys=[0])
    history.add(1, polled((0, 10), (1, 11)), f="poll")
    history.add(1, f="assign", keys=[1])
    history.add(1, f="assign", keys=[0, 1])
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == set()


def test_a_key_that_stays_assigned_goes_on(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, f="assign", keys=[0])
    history.add(1, polled((0, 10), (1, 11)), f="poll")
    history.add(1, f="assign", keys=[0, 1])
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == {"nonmonotonic-poll"}


def test_a_subscribed_consumer_may_be_given_what_it_had_before(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, f="subscribe", keys=[0])
    history.add(1, polled((0, 10), (1, 11)), f="poll")
    history.add(1, polled((0, 10)), f="poll")
    assert history.found() == set()


def test_a_poll_of_a_failed_transaction_is_polled_again(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, polled((0, 10)), type_="fail")
    history.add(1, polled((0, 10), (1, 11)))
    assert history.found() == set()


def test_a_skip_inside_one_operation_is_found_unless_the_group_moved_the_key(history: History) -> None:
    sent(0, history, (0, 10), (1, 11), (2, 12))
    history.add(1, polled((0, 10), (1, 11), (2, 12)), f="poll")
    history.add(2, f="subscribe", keys=[0])
    history.add(2, polled((0, 10)), polled((2, 12)), rebalanced=[0])
    assert history.found() == set()
    history.add(2, polled((0, 10)), polled((2, 12)))
    assert history.found() == {"int-poll-skip"}


def test_a_step_back_inside_one_operation_is_found(history: History) -> None:
    sent(0, history, (0, 10), (1, 11))
    history.add(1, polled((1, 11)), polled((0, 10)))
    assert history.found() == {"int-nonmonotonic-poll"}


def test_acknowledged_sends_of_a_producer_keep_their_order(history: History) -> None:
    sent(0, history, (1, 10), (0, 11))
    history.add(1, polled((0, 11), (1, 10)), f="poll")
    assert history.found() == {"nonmonotonic-send"}


def test_sends_inside_a_transaction_keep_their_order(history: History) -> None:
    history.add(0, Send(0, 10, 1), Send(0, 11, 0))
    history.add(1, polled((0, 11), (1, 10)), f="poll")
    assert history.found() == {"int-nonmonotonic-send"}


def test_writes_of_transactions_may_be_interleaved(history: History) -> None:
    history.add(0, Send(0, 10, 0), Send(0, 12, 2), time=(0, 20))
    history.add(1, Send(0, 11, 1), Send(0, 13, 3), time=(1, 19))
    history.add(2, polled((0, 10), (1, 11), (2, 12), (3, 13)), f="poll", time=(30, 31))
    assert history.found() == {"G0", "int-send-skip"}
    assert not forbidden(check(history.ops))


def test_two_transactions_that_read_each_other_are_a_cycle(history: History) -> None:
    history.add(0, Send(0, 10, 0), polled((0, 20), key=1), time=(0, 20))
    history.add(1, Send(1, 20, 0), polled((0, 10), key=0), time=(0, 20))
    assert history.found() == {"G1c", "G1c-ww"}
    assert set(forbidden(check(history.ops))) == {"G1c"}


def test_a_read_before_the_commit_that_shows_in_what_its_process_sends_next_is_a_cycle(history: History) -> None:
    history.add(1, polled((0, 10)), f="poll", time=(1, 2))
    history.add(1, Send(1, 20, 0), f="send", time=(3, 4))
    history.add(0, Send(0, 10, 0), polled((0, 20), key=1), time=(0, 20))
    assert history.found() == {"G1c-process"}


def test_a_read_before_the_commit_that_shows_in_what_somebody_sends_later_is_a_cycle(history: History) -> None:
    history.add(1, polled((0, 10)), f="poll", time=(1, 2))
    history.add(2, Send(1, 20, 0), f="send", time=(3, 4))
    history.add(0, Send(0, 10, 0), polled((0, 20), key=1), time=(0, 20))
    assert history.found() == {"G1c-realtime"}


def test_operations_that_overlap_are_no_cycle_in_time(history: History) -> None:
    history.add(1, polled((0, 10)), f="poll", time=(1, 5))
    history.add(2, Send(1, 20, 0), f="send", time=(3, 6))
    history.add(0, Send(0, 10, 0), polled((0, 20), key=1), time=(0, 20))
    assert history.found() == set()


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    first, second = HistoryWriter(tmp_path / "a"), HistoryWriter(tmp_path / "b")
    txn = first.invoke(3, "txn", [Send(2, 17), Poll({})])
    keys = second.invoke(4, "assign", keys=[1, 2])
    second.complete(4, keys, "ok", "assign", keys=[1, 2])
    first.complete(3, txn, "ok", "txn", [Send(2, 17, 40), Poll({1: [(7, 12)]})], rebalanced=[1])
    second.invoke(4, "send", [Send(2, 18)])
    second.complete(4, second.invoke(4, "send", [Send(2, 19)]), "ok", "send", [Send(2, 19, 41)])
    first.close()
    second.close()
    assign, transaction, send, unfinished = operations(merged([tmp_path / "a", tmp_path / "b"]))
    assert (assign.f, assign.keys, assign.type) == ("assign", {1, 2}, "ok")
    assert transaction.micros == (Send(2, 17, 40), Poll({1: [(7, 12)]}))
    assert transaction.rebalanced == {1}
    assert transaction.invoked_ns < assign.invoked_ns < assign.completed_ns < transaction.completed_ns
    assert (send.type, send.micros) == ("ok", (Send(2, 19, 41),))
    assert (unfinished.type, unfinished.micros) == ("info", (Send(2, 18),))
