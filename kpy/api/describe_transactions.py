"""DescribeTransactions (65), version 0.

State, producer, age and partitions of transactional ids. An id that nobody has is TRANSACTIONAL_ID_NOT_FOUND. KIP-664.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.pending import Pending
from kpy.wire.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse


def describe_transactions(
    request: DescribeTransactionsRequest, client: Client, broker: Broker
) -> DescribeTransactionsResponse | Pending[DescribeTransactionsResponse]:
    answers = [
        broker.transactions.tell(each, DescribeTransactionsRequest([each]), client)
        for each in request.transactional_ids
    ]
    return when_all(
        answers,
        lambda each: DescribeTransactionsResponse(transaction_states=[one.transaction_states[0] for one in each]),
    )
