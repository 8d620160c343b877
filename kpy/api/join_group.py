"""JoinGroup (11), versions 0-9.

A member asks to be in the next generation of a classic group, and waits until the join phase ends. What happens is
kpy/group/classic.py. Version 1 adds the rebalance timeout (KIP-62), 4 MEMBER_ID_REQUIRED (KIP-394), 5 static members
(KIP-345), 7 the protocol type and null protocol names (KIP-559), 8 the reason (KIP-800), 9 skip_assignment (KIP-814).

Deviations: group.initial.rebalance.delay.ms is 0 unless set, so the first member of a group does not wait 3 s; where it
is set, newcomers extend it whenever the group was empty, as in Apache Kafka 4, and not only in its first generation. A
static member that comes back is let into a full group, whose member it still is. A join or sync that is sent again
while the older one waits has the older one answered REBALANCE_IN_PROGRESS, where Apache Kafka forgets it.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.pending import Pending
from kpy.wire.join_group import JoinGroupRequest, JoinGroupResponse


def join_group(
    request: JoinGroupRequest, client: Client, broker: Broker
) -> JoinGroupResponse | Pending[JoinGroupResponse]:
    return broker.groups.tell(request.group_id, request, client)
