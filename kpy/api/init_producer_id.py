"""InitProducerId (22), versions 0-5.

An idempotent producer (no transactional id) gets an id of its own, with epoch 0, whatever id it says it had: the ids
that partitions remember are never given out twice. A transactional one gets the producer id of its transactional id
with a higher epoch, which fences the producer before it; a transaction that one has left open is aborted first, and the
new one told CONCURRENT_TRANSACTIONS until that is done (kpy/txn/shard.py). Version 3 lets a producer resume by naming
its id and epoch, 4 knows PRODUCER_FENCED. KIP-98, KIP-360.

Deviations: none.
"""

from collections.abc import Coroutine
from functools import partial
from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.producer_ids import with_producer_ids
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1


def init_producer_id(
    request: InitProducerIdRequest, client: Client, broker: Broker
) -> (
    InitProducerIdResponse
    | Pending[InitProducerIdResponse]
    | Coroutine[Any, Any, InitProducerIdResponse | Pending[InitProducerIdResponse]]
):
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return with_producer_ids(broker, partial(broker.transactions.tell, request.transactional_id, request, client))
    return _idempotent(broker)


async def _idempotent(broker: Broker) -> InitProducerIdResponse:
    try:
        producer_id = await broker.cluster.producer_ids.next()
    except ApiError as error:
        return _refused(error.code)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _refused(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH)
