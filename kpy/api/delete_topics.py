"""DeleteTopics (20), versions 0-6.

Topics are gone from the metadata, and their logs from the disk's directories, when this answers; the files follow after
file.delete.delay.ms. A topic with replicas on a broker that is away stays until that is back, and is answered
REQUEST_TIMED_OUT. Only the controller deletes topics; other brokers answer NOT_CONTROLLER. Version 6 names topics by id
too (KIP-516).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import MetadataImage
from kpy.wire.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse, DeleteTopicState

FIRST_VERSION_WITH_TOPIC_IDS = 6
FIRST_VERSION_WITH_TOPIC_DELETION_DISABLED = 3


async def delete_topics(request: DeleteTopicsRequest, client: Client, broker: Broker) -> DeleteTopicsResponse:
    if client.version >= FIRST_VERSION_WITH_TOPIC_IDS:
        topics = request.topics
    else:
        topics = [DeleteTopicState(name=name) for name in request.topic_names]
    if not broker.cluster.is_controller:
        return _refused(topics, ErrorCode.NOT_CONTROLLER)
    if not broker.config.delete_topic_enable:
        disabled = ErrorCode.TOPIC_DELETION_DISABLED
        if client.version < FIRST_VERSION_WITH_TOPIC_DELETION_DISABLED:
            disabled = ErrorCode.INVALID_REQUEST
        return _refused(topics, disabled)
    if any(topic.name is not None and topic.topic_id != ZERO_ID for topic in topics):
        return _refused(topics, ErrorCode.INVALID_REQUEST)
    responses: list[DeletableTopicResult] = []

    def plan(image: MetadataImage) -> list[str]:
        doomed: dict[str, None] = {}
        responses.clear()
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
                    # Who does not want to wait is told that it took too long, even though it did not: as in Apache
                    # Kafka.
                    error = ErrorCode.REQUEST_TIMED_OUT
            responses.append(DeletableTopicResult(name=name, topic_id=topic.topic_id, error_code=error))
        return list(doomed)

    try:
        await broker.cluster.delete_topics(plan)
    except ApiError as error:
        return _refused(topics, error.code)
    cluster = broker.cluster
    names = {response.name for response in responses if response.error_code == ErrorCode.NONE}
    await cluster.wait_until(lambda image: names.isdisjoint(image.topics), request.timeout_ms)
    for response in responses:
        if response.error_code == ErrorCode.NONE and response.name in cluster.stored.topics:
            # A broker that has replicas of it is away. The topic goes when it is back.
            response.error_code = ErrorCode.REQUEST_TIMED_OUT
    return DeleteTopicsResponse(responses=responses)


def _refused(topics: list[DeleteTopicState], error: ErrorCode) -> DeleteTopicsResponse:
    return DeleteTopicsResponse(
        responses=[DeletableTopicResult(name=topic.name, topic_id=topic.topic_id, error_code=error) for topic in topics]
    )
