"""DeleteTopics (20), versions 0-6.

Topics are gone from the metadata, and their logs from the disk's directories, when this answers; the files follow after
file.delete.delay.ms. Version 6 names topics by id too (KIP-516).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.wire.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState

FIRST_VERSION_WITH_TOPIC_IDS = 6
FIRST_VERSION_WITH_TOPIC_DELETION_DISABLED = 3


def delete_topics(request: DeleteTopicsRequest, client: Client, broker: Broker) -> DeleteTopicsResponse:
    if client.version >= FIRST_VERSION_WITH_TOPIC_IDS:
        topics = request.topics
    else:
        topics = [DeleteTopicState(name=name) for name in request.topic_names]
    if not broker.config.delete_topic_enable:
        disabled = ErrorCode.TOPIC_DELETION_DISABLED
        if client.version < FIRST_VERSION_WITH_TOPIC_DELETION_DISABLED:
            disabled = ErrorCode.INVALID_REQUEST
        return _refused(topics, disabled)
    if any(topic.name is not None and topic.topic_id != ZERO_ID for topic in topics):
        return _refused(topics, ErrorCode.INVALID_REQUEST)
    image = broker.cluster.image
    doomed: dict[str, None] = {}
    responses: list[DeletableTopicResult] = []
    for topic in topics:
        name = topic.name
        error = ErrorCode.NONE
        if name is None:
            name = image.topic_names.get(topic.topic_id)
        if name is None:
            error = ErrorCode.UNKNOWN_TOPIC_ID
        elif name not in image.topics:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        else:
            doomed[name] = None
            if request.timeout_ms <= 0:
                # Who does not want to wait is told that it took too long, even though it did not: as in Apache Kafka.
                error = ErrorCode.REQUEST_TIMED_OUT
        responses.append(DeletableTopicResult(name=name, topic_id=topic.topic_id, error_code=error))
    if doomed:
        broker.cluster.delete_topics(doomed)
    return DeleteTopicsResponse(responses=responses)


def _refused(topics: list[DeleteTopicState], error: ErrorCode) -> DeleteTopicsResponse:
    return DeleteTopicsResponse(
        responses=[DeletableTopicResult(name=topic.name, topic_id=topic.topic_id, error_code=error) for topic in topics]
    )
