"""InitProducerId (22), versions 0-5.

An idempotent producer (no transactional id) gets an id of its own, with epoch 0, whatever id it says it had: the ids
that partitions remember are never given out twice. A transactional one gets the producer id of its transactional id
with a higher epoch, which fences the producer before it; a transaction that one has left open is aborted first, and the
new one told CONCURRENT_TRANSACTIONS until that is done (kpy/txn/shard.py). Version 3 lets a producer resume by naming
its id and epoch, 4 knows PRODUCER_FENCED. KIP-98, KIP-360.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.pending import Pending
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1


def init_producer_id(
    request: InitProducerIdRequest, client: Client, broker: Broker
) -> InitProducerIdResponse | Pending[InitProducerIdResponse]:
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return broker.transactions.tell(request.transactional_id, request, client)
    try:
        return InitProducerIdResponse(producer_id=broker.cluster.next_producer_id(), producer_epoch=0)
    except ApiError as error:
        return _refused(error.code)


def _refused(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH)
