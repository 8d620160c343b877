"""EndTxn (26), versions 0-5.

Commits or aborts the transaction of a transactional id. The answer comes when the decision is written; nothing can
undo it then, though partitions may still wait for their markers (kpy/transaction_coordinator.py). Version 2 knows
PRODUCER_FENCED. Version 5 raises the epoch and answers with it, so that a request that arrives late cannot end the next
transaction; a repetition of the last one is answered alike (kpy/txn/transaction.py). KIP-98, KIP-890.

Deviations: when few partitions take part, those that this broker leads have their markers before the answer leaves,
where Apache Kafka answers before. On a single broker a producer does not meet CONCURRENT_TRANSACTIONS in its next
transaction, and whoever reads committed records after the answer sees these.
"""

from collections.abc import Coroutine
from functools import partial
from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.producer_ids import with_producer_ids
from kpy.pending import Pending
from kpy.wire.end_txn import EndTxnRequest, EndTxnResponse


def end_txn(
    request: EndTxnRequest, client: Client, broker: Broker
) -> EndTxnResponse | Pending[EndTxnResponse] | Coroutine[Any, Any, EndTxnResponse | Pending[EndTxnResponse]]:
    # The epoch may be used up, and then a new producer id begins.
    return with_producer_ids(broker, partial(broker.transactions.tell, request.transactional_id, request, client))
