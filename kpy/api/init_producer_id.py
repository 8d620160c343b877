"""InitProducerId (22), versions 0-5.

An idempotent producer (no transactional id) gets an id of its own, with epoch 0, whatever id it says it had: the ids
that partitions remember are never given out twice. KIP-98, KIP-360.

Deviation: transactions are not served yet. A producer that names a transactional id is told
TRANSACTIONAL_ID_AUTHORIZATION_FAILED, the one error that the Java client and librdkafka both take as final: others,
UNSUPPORTED_VERSION too, make librdkafka ask again until its call times out.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1


async def init_producer_id(request: InitProducerIdRequest, client: Client, broker: Broker) -> InitProducerIdResponse:
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id == "":
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _refused(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    try:
        producer_id = await broker.cluster.next_producer_id()
    except ApiError as error:
        return _refused(error.code)
    return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)


def _refused(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH)
