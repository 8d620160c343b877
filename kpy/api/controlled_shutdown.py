"""ControlledShutdown (7), versions 1-3: a broker that stops asks the controller to give its leaderships to others.

This broker is no controller: NOT_CONTROLLER, and the broker that stops looks for the one that is.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.wire.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse


def controlled_shutdown(
    request: ControlledShutdownRequest, client: Client, broker: Broker
) -> ControlledShutdownResponse:
    return ControlledShutdownResponse(ErrorCode.NOT_CONTROLLER, [])
