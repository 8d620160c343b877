"""ListTransactions (66), versions 0-2; 2 where google-re2 is installed.

The transactional ids that this broker coordinates; a client asks every broker. Filters by state, of which unknown ones
come back by name, and by producer id; version 1 by how long ago a transaction began; version 2 by a pattern that the
whole id must match. While a shard is being read from its log the list is COORDINATOR_LOAD_IN_PROGRESS, whatever was
asked. KIP-664, KIP-994, KIP-1152.

A pattern may take a second on an id of 32 kB, so ids are matched in a thread. Deviations: those of
kpy/regular_expressions.py.
"""

from typing import Any

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.regular_expressions import InvalidRegularExpressionError, RegularExpression
from kpy.txn.transaction import OTHER_STATE_NAMES, STATE_NAMES, Transaction
from kpy.wire.list_transactions import ListTransactionsRequest, ListTransactionsResponse, TransactionState

MATCHING_THREADS = trio.CapacityLimiter(2)
"""Patterns that take long keep no other work from getting a thread."""


def list_transactions(request: ListTransactionsRequest, client: Client, broker: Broker) -> Any:
    states = frozenset(STATE_NAMES[name] for name in request.state_filters if name in STATE_NAMES)
    unknown = [name for name in request.state_filters if name not in STATE_NAMES and name not in OTHER_STATE_NAMES]
    producer_ids = frozenset(request.producer_id_filters)
    now_ms = broker.now_ms()

    def is_wanted(each: Transaction) -> bool:
        return (
            (not request.state_filters or each.state in states)
            and (not producer_ids or each.producer_id in producer_ids)
            and (request.duration_filter < 0 or now_ms - each.start_timestamp_ms > request.duration_filter)
        )

    error, listed = broker.transactions.list_transactions(is_wanted)
    if error:
        return ListTransactionsResponse(error_code=error)
    response = ListTransactionsResponse(unknown_state_filters=unknown, transaction_states=listed)
    if request.transactional_id_pattern:
        return _those_that_match(request.transactional_id_pattern, response)
    return response


async def _those_that_match(pattern: str, response: ListTransactionsResponse) -> ListTransactionsResponse:
    try:
        expression = RegularExpression(pattern)
    except InvalidRegularExpressionError:
        return ListTransactionsResponse(error_code=ErrorCode.INVALID_REGULAR_EXPRESSION)
    listed = response.transaction_states
    response.transaction_states = await trio.to_thread.run_sync(
        _matching, expression, listed, abandon_on_cancel=True, limiter=MATCHING_THREADS
    )
    return response


def _matching(expression: RegularExpression, listed: list[TransactionState]) -> list[TransactionState]:
    matching: list[TransactionState] = []
    for each in listed:
        trio.from_thread.check_cancelled()  # the client has gone
        if expression.matches(each.transactional_id):
            matching.append(each)
    return matching
