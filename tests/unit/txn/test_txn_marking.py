"""What the answers of other leaders mean for the end of a transaction, and which questions share a request."""

from collections import deque

import pytest

from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.txn.marking import (
    MAX_MARKERS_A_REQUEST,
    MarkerOf,
    Marking,
    Verdict,
    markers_errors,
    markers_request,
    take_markers,
)
from kpy.txn.shard import TxnMarkers
from kpy.txn.transaction import TopicPartition
from kpy.txn.verification import (
    MAX_QUESTIONS_A_REQUEST,
    Question,
    question_results,
    questions_request,
    take_questions,
)
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.write_txn_markers import (
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
)

PARTITIONS: list[TopicPartition] = [("a", 0), ("a", 1), ("b", 0)]


def marking(producer_id: int = 7, partitions: list[TopicPartition] = PARTITIONS) -> Marking:
    return Marking(TxnMarkers(f"tx-{producer_id}", producer_id, 3, True, frozenset(partitions)), 5, "first term")


def is_current(of: Marking) -> bool:
    return of.term == "first term"


def test_a_transaction_is_done_when_every_partition_has_answered() -> None:
    ending = marking()
    assert ending.take(2) == PARTITIONS[:2]
    assert ending.take(2) == PARTITIONS[2:]
    for partition in PARTITIONS:
        assert not ending.is_done
        assert ending.settle(partition, ErrorCode.NONE) is Verdict.DONE
    assert ending.is_done


@pytest.mark.parametrize(
    "error",
    [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.UNKNOWN_SERVER_ERROR,
        12_345,
    ],
)
def test_a_partition_that_failed_is_asked_again_and_no_other(error: int) -> None:
    ending = marking()
    first, *others = ending.take(3)
    assert ending.settle(first, error) is Verdict.ASK_AGAIN
    for partition in others:
        ending.settle(partition, ErrorCode.NONE)
    assert not ending.is_done
    assert ending.take(3) == [], "not before its time"
    ending.retry()
    assert ending.take(3) == [first]
    ending.settle(first, ErrorCode.NONE)
    assert ending.is_done


@pytest.mark.parametrize("error", [ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, ErrorCode.UNSUPPORTED_VERSION])
def test_a_partition_that_can_have_no_transactions_needs_no_marker(error: ErrorCode) -> None:
    ending = marking(partitions=[("a", 0)])
    ending.settle(ending.take(1)[0], error)
    assert ending.is_done


@pytest.mark.parametrize("error", [ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.TRANSACTION_COORDINATOR_FENCED])
def test_a_coordinator_that_was_succeeded_asks_nobody_any_more(error: ErrorCode) -> None:
    """Nor does it call the transaction complete, whatever else is answered."""
    ending = marking()
    failed, fenced = ending.take(2)
    ending.settle(failed, ErrorCode.NOT_LEADER_OR_FOLLOWER)
    assert ending.settle(fenced, error) is Verdict.GIVE_UP
    ending.retry()
    assert ending.take(3) == []
    assert not ending.is_done


def test_markers_of_many_transactions_share_a_request() -> None:
    one, other = marking(1), marking(2, [("b", 1)])
    items: list[MarkerOf] = [(one, ("a", 1)), (other, ("b", 1)), (one, ("a", 0))]
    request = markers_request(items)
    assert [
        (each.producer_id, each.producer_epoch, each.transaction_result, each.coordinator_epoch)
        for each in request.markers
    ] == [(1, 3, True, 5), (2, 3, True, 5)]
    assert [(topic.name, topic.partition_indexes) for each in request.markers for topic in each.topics] == [
        ("a", [0, 1]),
        ("b", [1]),
    ]


def test_answers_are_told_apart_by_producer_and_partition() -> None:
    one, other = marking(1), marking(2)
    items: list[MarkerOf] = [(one, ("a", 0)), (other, ("a", 0)), (other, ("a", 1))]
    response = WriteTxnMarkersResponse(
        [
            WritableTxnMarkerResult(
                producer_id, [WritableTxnMarkerTopicResult("a", [WritableTxnMarkerPartitionResult(0, error)])]
            )
            for producer_id, error in ((2, ErrorCode.NOT_LEADER_OR_FOLLOWER), (1, ErrorCode.NONE))
        ]
    )
    assert [error for _, error in markers_errors(items, response)] == [
        ErrorCode.NONE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_SERVER_ERROR,
    ]


def test_a_request_is_bounded_and_leaves_out_what_nobody_waits_for() -> None:
    former = marking(1)
    former.term = "before"
    many = marking(2, [("a", index) for index in range(MAX_MARKERS_A_REQUEST + 1)])
    waiting: deque[MarkerOf] = deque([(former, ("a", 0)), *((many, partition) for partition in many.take(1 << 20))])
    first = take_markers(waiting, is_current)
    assert [partition for _, partition in first] == [("a", index) for index in range(MAX_MARKERS_A_REQUEST)]
    assert take_markers(waiting, is_current) == [(many, ("a", MAX_MARKERS_A_REQUEST))]
    assert take_markers(waiting, is_current) == []


def question(transactional_id: str) -> Question:
    topics = [AddPartitionsToTxnTopic("a", [0])]
    return Question(AddPartitionsToTxnTransaction(transactional_id, 1, 0, True, topics), Pending())


def errors(result: AddPartitionsToTxnResult) -> list[int]:
    return [each.partition_error_code for topic in result.topic_results for each in topic.results_by_partition]


def test_one_request_asks_once_for_a_transactional_id() -> None:
    """The answer names nothing else."""
    first, second, other = question("x"), question("x"), question("y")
    waiting = deque([first, second, other])
    assert take_questions(waiting) == [first, other]
    assert take_questions(waiting) == [second]
    assert take_questions(waiting) == []


def test_as_many_transactions_as_fit_are_asked_for_in_order() -> None:
    waiting = deque(question(str(number)) for number in range(MAX_QUESTIONS_A_REQUEST + 1))
    asked = questions_request(take_questions(waiting)).transactions
    assert [each.transactional_id for each in asked] == [str(number) for number in range(MAX_QUESTIONS_A_REQUEST)]
    assert len(waiting) == 1


def test_each_question_gets_its_result() -> None:
    x, y = question("x"), question("y")
    result = AddPartitionsToTxnResult("y", [AddPartitionsToTxnTopicResult("a", [AddPartitionsToTxnPartitionResult(0)])])
    response = AddPartitionsToTxnResponse(results_by_transaction=[result])
    assert [errors(each) for _, each in question_results([x, y], response)] == [
        [ErrorCode.UNKNOWN_SERVER_ERROR],
        [ErrorCode.NONE],
    ]


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (ErrorCode.CLUSTER_AUTHORIZATION_FAILED, ErrorCode.INVALID_TXN_STATE),
        (ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    ],
)
def test_a_request_refused_as_a_whole_is_refused_to_each(refused: ErrorCode, told: ErrorCode) -> None:
    response = AddPartitionsToTxnResponse(error_code=refused)
    assert [errors(each) for _, each in question_results([question("x"), question("y")], response)] == [[told], [told]]
