"""ListGroups (16), versions 0-5.

The groups that this broker coordinates; a client asks every broker. Version 4 filters by state (KIP-518), 5 by type,
of which there is "classic" (KIP-848). While a shard is being read from its log the list is
COORDINATOR_LOAD_IN_PROGRESS.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.wire.list_groups import ListGroupsRequest, ListGroupsResponse


def list_groups(request: ListGroupsRequest, client: Client, broker: Broker) -> ListGroupsResponse:
    error, groups = broker.groups.list_groups(request.states_filter, request.types_filter)
    return ListGroupsResponse(error_code=error, groups=groups)
