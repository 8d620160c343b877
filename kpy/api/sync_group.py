"""SyncGroup (14), versions 0-5.

A member asks for its assignment in this generation; the leader's request carries everybody's. Followers wait for it.
What happens is kpy/group/classic.py. Version 3 adds static members (KIP-345), 5 the protocol type and name (KIP-559).

Deviations: when the assignment cannot be written, the group stays in CompletingRebalance and the leader's next
SyncGroup tries again, where Apache Kafka starts another rebalance.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.pending import Pending
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupResponse


def sync_group(
    request: SyncGroupRequest, client: Client, broker: Broker
) -> SyncGroupResponse | Pending[SyncGroupResponse]:
    return broker.groups.tell(request.group_id, request, client)
