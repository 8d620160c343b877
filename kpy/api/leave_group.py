"""LeaveGroup (13), versions 0-5.

Members leave a classic group without waiting for their session timeout. Since version 3 several can be named, static
ones by their instance id alone, each with an error of its own (KIP-345); version 5 adds the reason (KIP-800).

Deviations: a member that leaves while its SyncGroup waits has that answered UNKNOWN_MEMBER_ID; Apache Kafka forgets it.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.pending import Pending
from kpy.wire.leave_group import LeaveGroupRequest, LeaveGroupResponse


def leave_group(
    request: LeaveGroupRequest, client: Client, broker: Broker
) -> LeaveGroupResponse | Pending[LeaveGroupResponse]:
    return broker.groups.tell(request.group_id, request, client)
