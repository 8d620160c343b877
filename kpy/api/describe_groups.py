"""DescribeGroups (15), versions 0-6.

State, protocol and members of groups. A group that does not exist is "Dead" without an error up to version 5, and
GROUP_ID_NOT_FOUND from version 6 on (KIP-1043). The protocol, metadata and assignments are shown of Stable groups only.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.pending import Pending
from kpy.wire.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse

ALL_GROUP_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8
"""READ, DELETE and DESCRIBE, as the bits of Kafka's AclOperation: what there is to be allowed on a group."""


def describe_groups(
    request: DescribeGroupsRequest, client: Client, broker: Broker
) -> DescribeGroupsResponse | Pending[DescribeGroupsResponse]:
    answers = [
        broker.groups.tell(group_id, DescribeGroupsRequest(groups=[group_id]), client) for group_id in request.groups
    ]

    def combine(each: list[DescribeGroupsResponse]) -> DescribeGroupsResponse:
        described: list[DescribedGroup] = [one.groups[0] for one in each]
        if request.include_authorized_operations:
            for group in described:
                group.authorized_operations = ALL_GROUP_OPERATIONS
        return DescribeGroupsResponse(groups=described)

    return when_all(answers, combine)
