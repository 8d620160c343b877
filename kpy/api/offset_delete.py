"""OffsetDelete (47), version 0.

Forgets committed offsets of topics that a group does not consume at the moment: GROUP_SUBSCRIBED_TO_TOPIC for the
others, NON_EMPTY_GROUP for a group whose subscriptions the coordinator cannot read (KIP-496).

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.pending import Pending
from kpy.wire.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse


def offset_delete(
    request: OffsetDeleteRequest, client: Client, broker: Broker
) -> OffsetDeleteResponse | Pending[OffsetDeleteResponse]:
    return broker.groups.tell(request.group_id, request, client)
