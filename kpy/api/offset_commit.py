"""OffsetCommit (8), versions 0-10.

Stores offsets of a group; they count once they are written to __consumer_offsets. Each partition has its own error:
UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE, or what is wrong with the member (kpy/group/offsets.py).
Versions 2 to 4 may set how long the offsets are kept, 6 adds the leader epoch (KIP-320), 7 static members (KIP-345),
10 topic ids (KIP-848).

Deviations: version 0, which Apache Kafka 3.9 keeps in ZooKeeper, is stored like the others. A commit in a generation
of a group that does not exist is ILLEGAL_GENERATION in all versions, after which a consumer joins again; Apache Kafka
4 answers GROUP_ID_NOT_FOUND from version 9 on, which is fatal to it.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import when_all
from kpy.errors import ErrorCode
from kpy.pending import Pending
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

TOPIC_IDS_SINCE = 10


def offset_commit(
    request: OffsetCommitRequest, client: Client, broker: Broker
) -> OffsetCommitResponse | Pending[OffsetCommitResponse]:
    if client.version < TOPIC_IDS_SINCE:
        return broker.groups.tell(request.group_id, request, client)
    unknown: list[OffsetCommitRequestTopic] = []
    known: list[OffsetCommitRequestTopic] = []
    for topic in request.topics:
        topic.name = broker.cluster.image.topic_names.get(topic.topic_id, "")
        (known if topic.name else unknown).append(topic)
    if not unknown:
        return broker.groups.tell(request.group_id, request, client)
    refused = [_unknown_topic(topic) for topic in unknown]
    if not known:
        return OffsetCommitResponse(topics=refused)
    request.topics = known
    answer = broker.groups.tell(request.group_id, request, client)
    return when_all([answer], lambda answers: OffsetCommitResponse(topics=answers[0].topics + refused))


def _unknown_topic(topic: OffsetCommitRequestTopic) -> OffsetCommitResponseTopic:
    return OffsetCommitResponseTopic(
        topic_id=topic.topic_id,
        partitions=[
            OffsetCommitResponsePartition(partition_index=each.partition_index, error_code=ErrorCode.UNKNOWN_TOPIC_ID)
            for each in topic.partitions
        ],
    )
