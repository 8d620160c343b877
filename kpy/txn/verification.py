"""Questions of a leader to a transaction's coordinator on another broker: are these partitions in it? (KIP-890)

Many go in one request, with one for each transactional id at most: by that alone the answers are told apart. Kafka
class AddPartitionsToTxnManager, which answers NETWORK_EXCEPTION to the older of two questions of one id; here the
younger waits for the next request.
"""

from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple

from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.txn.answers import partition_results
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTransaction,
)

MAX_QUESTIONS_A_REQUEST = 1_000


class Question(NamedTuple):
    """`pending` waits for the AddPartitionsToTxnResult."""

    message: AddPartitionsToTxnTransaction
    pending: "Pending[AddPartitionsToTxnResult]"

    def refuse(self, error: ErrorCode) -> None:
        self.pending.complete(partition_results(self.message, error))


def take_questions(waiting: deque[Question]) -> list[Question]:
    """What goes with the next request to one broker."""
    taken: dict[str, Question] = {}
    others: list[Question] = []
    while waiting and len(taken) < MAX_QUESTIONS_A_REQUEST:
        question = waiting.popleft()
        if taken.setdefault(question.message.transactional_id, question) is not question:
            others.append(question)
    waiting.extendleft(reversed(others))
    return list(taken.values())


def questions_request(questions: Collection[Question]) -> AddPartitionsToTxnRequest:
    return AddPartitionsToTxnRequest([each.message for each in questions])


def question_results(
    questions: Collection[Question], response: AddPartitionsToTxnResponse
) -> Iterator[tuple[Question, AddPartitionsToTxnResult]]:
    """The result for each; one with UNKNOWN_SERVER_ERROR for what the answer leaves out."""
    error = response.error_code
    if error == ErrorCode.CLUSTER_AUTHORIZATION_FAILED:
        error = ErrorCode.INVALID_TXN_STATE  # What a broker may not do is nothing that its client could mend.
    results = {each.transactional_id: each for each in response.results_by_transaction}
    for question in questions:
        found = None if error else results.get(question.message.transactional_id)
        yield question, found or partition_results(question.message, error or ErrorCode.UNKNOWN_SERVER_ERROR)
