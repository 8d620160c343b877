"""ControlledShutdown (7), versions 1-3: a broker that stops asks the controller to give its leaderships to others.

Answers with the partitions that have no other in-sync replica; the broker asks again, and goes in the end all the same.
Errors: NOT_CONTROLLER, STALE_BROKER_EPOCH (KIP-380), BROKER_NOT_AVAILABLE.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError
from kpy.metadata.asked_by_brokers import UNKNOWN_BROKER_EPOCH, relieve
from kpy.wire.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse, RemainingPartition

FIRST_VERSION_WITH_EPOCH = 2


async def controlled_shutdown(
    request: ControlledShutdownRequest, client: Client, broker: Broker
) -> ControlledShutdownResponse:
    epoch = request.broker_epoch if client.version >= FIRST_VERSION_WITH_EPOCH else UNKNOWN_BROKER_EPOCH
    try:
        left = await relieve(broker.cluster, request.broker_id, epoch)
    except ApiError as error:
        return ControlledShutdownResponse(error.code, [])
    return ControlledShutdownResponse(0, [RemainingPartition(topic, index) for topic, index in left])
