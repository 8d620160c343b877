"""AllocateProducerIds (67), version 0: a broker asks the controller for a block of producer ids (KIP-730).

Errors: NOT_CONTROLLER, STALE_BROKER_EPOCH.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError
from kpy.metadata.asked_by_brokers import allocate_producer_ids as allocate
from kpy.wire.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse


async def allocate_producer_ids(
    request: AllocateProducerIdsRequest, client: Client, broker: Broker
) -> AllocateProducerIdsResponse:
    try:
        block = await allocate(broker.cluster, request.broker_id, request.broker_epoch)
    except ApiError as error:
        return AllocateProducerIdsResponse(error_code=error.code)
    return AllocateProducerIdsResponse(producer_id_start=block.start, producer_id_len=len(block))
