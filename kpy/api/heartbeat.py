"""Heartbeat (12), versions 0-4.

Answers REBALANCE_IN_PROGRESS while the group prepares a rebalance, so that the member joins again. A member that is
silent for its session timeout is removed by its group (kpy/group/rebalance.py), not here. KIP-62, KIP-345.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.wire.heartbeat import HeartbeatRequest, HeartbeatResponse


def heartbeat(request: HeartbeatRequest, client: Client, broker: Broker) -> HeartbeatResponse:
    return broker.groups.tell(request.group_id, request, client)
