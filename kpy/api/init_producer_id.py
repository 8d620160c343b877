"""InitProducerId (22), versions 0-5.

An idempotent producer (no transactional id) gets an id of its own, with epoch 0, whatever id it says it had: the ids
that partitions remember are never given out twice. KIP-98, KIP-360.

Deviation: transactions are not served yet. A producer that names a transactional id is told UNSUPPORTED_VERSION,
which both the Java client and librdkafka take as fatal at once, rather than as a reason to look for a coordinator
again.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1


def init_producer_id(request: InitProducerIdRequest, client: Client, broker: Broker) -> InitProducerIdResponse:
    if (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH):
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id == "":
        return _refused(ErrorCode.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _refused(ErrorCode.UNSUPPORTED_VERSION)
    return InitProducerIdResponse(producer_id=broker.cluster.next_producer_id(), producer_epoch=0)


def _refused(error: ErrorCode) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=error, producer_id=NO_PRODUCER_ID, producer_epoch=NO_PRODUCER_EPOCH)
