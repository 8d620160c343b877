"""ListTransactions (66), versions 0-1.

The transactional ids that this broker coordinates; a client asks every broker. Filters by state, of which unknown ones
come back by name, and by producer id; version 1 by how long ago a transaction began. While a shard is being read from
its log the list is COORDINATOR_LOAD_IN_PROGRESS. KIP-664, KIP-994.

Deviations: none. Version 2 adds a pattern in RE2's syntax, whose promise of linear time Python's own cannot keep.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.txn.transaction import OTHER_STATE_NAMES, STATE_NAMES, Transaction
from kpy.wire.list_transactions import ListTransactionsRequest, ListTransactionsResponse


def list_transactions(request: ListTransactionsRequest, client: Client, broker: Broker) -> ListTransactionsResponse:
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
    return ListTransactionsResponse(unknown_state_filters=unknown, transaction_states=listed)
