"""DeleteGroups (42), versions 0-2.

Deletes groups that have no members, with their offsets: NON_EMPTY_GROUP or GROUP_ID_NOT_FOUND for the others (KIP-229).

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.pending import Pending
from kpy.wire.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse


def delete_groups(
    request: DeleteGroupsRequest, client: Client, broker: Broker
) -> DeleteGroupsResponse | Pending[DeleteGroupsResponse]:
    answers = [
        broker.groups.tell(group_id, DeleteGroupsRequest(groups_names=[group_id]), client)
        for group_id in dict.fromkeys(request.groups_names)
    ]
    return when_all(answers, lambda each: DeleteGroupsResponse(results=[one.results[0] for one in each]))
