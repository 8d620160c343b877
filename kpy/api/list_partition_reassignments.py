"""ListPartitionReassignments (46), version 0: the moves of replicas that go on, of some partitions or of all.

Only the controller knows; other brokers answer NOT_CONTROLLER. KIP-455.
"""

from collections.abc import Iterable, Iterator

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.reassignments import is_reassigned
from kpy.errors import ErrorCode
from kpy.metadata.image import MetadataImage, PartitionImage
from kpy.wire.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    OngoingPartitionReassignment,
    OngoingTopicReassignment,
)


def list_partition_reassignments(
    request: ListPartitionReassignmentsRequest, client: Client, broker: Broker
) -> ListPartitionReassignmentsResponse:
    if not broker.cluster.is_controller:
        return ListPartitionReassignmentsResponse(error_code=ErrorCode.NOT_CONTROLLER, error_message=None)
    topics: list[OngoingTopicReassignment] = []
    for name, partitions in _asked(request, broker.cluster.stored):
        ongoing = [_ongoing(partition) for partition in partitions if is_reassigned(partition)]
        if ongoing:
            topics.append(OngoingTopicReassignment(name, ongoing))
    return ListPartitionReassignmentsResponse(error_message=None, topics=topics)


def _asked(
    request: ListPartitionReassignmentsRequest, image: MetadataImage
) -> Iterator[tuple[str, Iterable[PartitionImage]]]:
    if request.topics is None:
        yield from ((name, topic.partitions) for name, topic in image.topics.items())
        return
    for asked in request.topics:
        topic = image.topics.get(asked.name)
        if topic is not None:
            wanted = set(asked.partition_indexes)
            yield asked.name, [partition for partition in topic.partitions if partition.partition in wanted]


def _ongoing(partition: PartitionImage) -> OngoingPartitionReassignment:
    return OngoingPartitionReassignment(
        partition.partition, list(partition.replicas), list(partition.adding), list(partition.removing)
    )
