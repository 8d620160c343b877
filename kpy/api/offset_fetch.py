"""OffsetFetch (9), versions 0-10.

The committed offsets of one group, since version 8 of several (KIP-709). What nobody committed is offset -1 without
an error; null topics (version 2 and later) ask for all of a group's. With require_stable (version 7, KIP-447) offsets
that an open transaction may change are UNSTABLE_OFFSET_COMMIT. Version 10 names topics by id (KIP-848): an unknown id
is UNKNOWN_TOPIC_ID.

Deviations: version 0, which Apache Kafka 3.9 reads from ZooKeeper, reads the same offsets as the others.
"""

from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.errors import ErrorCode
from kpy.group.answers import GROUPS_IN_OFFSET_FETCH_SINCE, NO_LEADER_EPOCH, NO_OFFSET
from kpy.metadata.image import MetadataImage
from kpy.pending import Pending
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)

TOPIC_IDS_SINCE = 10


def offset_fetch(
    request: OffsetFetchRequest, client: Client, broker: Broker
) -> OffsetFetchResponse | Pending[OffsetFetchResponse]:
    if client.version < GROUPS_IN_OFFSET_FETCH_SINCE:
        return broker.groups.tell(request.group_id, request, client)
    answers = [_fetch_group(group, request.require_stable, client, broker) for group in request.groups]
    return when_all(answers, lambda each: OffsetFetchResponse(groups=[one.groups[0] for one in each]))


def _fetch_group(group: OffsetFetchRequestGroup, require_stable: bool, client: Client, broker: Broker) -> Any:
    """One group's part: each group has a coordinator shard of its own."""
    unknown: list[OffsetFetchRequestTopics] = []
    if client.version >= TOPIC_IDS_SINCE and group.topics is not None:
        image = broker.cluster.image
        for topic in group.topics:
            topic.name = image.topic_names.get(topic.topic_id, "")
        unknown = [topic for topic in group.topics if not topic.name]
        group.topics = [topic for topic in group.topics if topic.name]
    request = OffsetFetchRequest(groups=[group], require_stable=require_stable)
    answer = broker.groups.tell(group.group_id, request, client)
    if client.version < TOPIC_IDS_SINCE:
        return answer
    return when_all([answer], lambda answers: _with_topic_ids(answers[0], unknown, broker.cluster.image))


def _with_topic_ids(
    response: OffsetFetchResponse, unknown: list[OffsetFetchRequestTopics], image: MetadataImage
) -> OffsetFetchResponse:
    """Offsets of a topic that is gone have no id to be shown under."""
    group: OffsetFetchResponseGroup = response.groups[0]
    if group.error_code:
        return response
    known: list[OffsetFetchResponseTopics] = []
    for topic in group.topics:
        found = image.topics.get(topic.name)
        if found is not None:
            topic.topic_id = found.topic_id
            known.append(topic)
    group.topics = known + [_unknown_topic(topic) for topic in unknown]
    return response


def _unknown_topic(topic: OffsetFetchRequestTopics) -> OffsetFetchResponseTopics:
    return OffsetFetchResponseTopics(
        topic_id=topic.topic_id,
        partitions=[
            OffsetFetchResponsePartitions(index, NO_OFFSET, NO_LEADER_EPOCH, "", ErrorCode.UNKNOWN_TOPIC_ID)
            for index in topic.partition_indexes
        ],
    )
