"""UpdateMetadata (6), versions 5-8: the controller says which brokers live and who leads what.

It is where Metadata answers come from, how this broker finds the controller, and whom it believes to live. A request
from the past is refused: STALE_BROKER_EPOCH, STALE_CONTROLLER_EPOCH. KIP-380, KIP-516 (topic ids).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.wire.update_metadata import UpdateMetadataRequest, UpdateMetadataResponse


def update_metadata(request: UpdateMetadataRequest, client: Client, broker: Broker) -> UpdateMetadataResponse:
    assert broker.membership is not None
    error = broker.membership.admit(request)
    if not error:
        broker.cluster.learn(request)
    return UpdateMetadataResponse(error)
