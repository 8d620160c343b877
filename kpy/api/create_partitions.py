"""CreatePartitions (37), versions 0-3.

Topics only grow, and keys of keyed records move to other partitions when they do. Each topic of a request has its own
answer. Only the controller adds partitions; other brokers answer NOT_CONTROLLER. KIP-195.
"""

from collections import Counter

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import plan_partitions
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.wire.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)


async def create_partitions(
    request: CreatePartitionsRequest, client: Client, broker: Broker
) -> CreatePartitionsResponse:
    times = Counter(topic.name for topic in request.topics)
    topics = {topic.name: topic for topic in request.topics}
    results: list[CreatePartitionsTopicResult] = []

    def plan(image: MetadataImage) -> list[TopicImage]:
        planned: list[TopicImage] = []
        results.clear()
        for topic in topics.values():
            try:
                if times[topic.name] > 1:
                    raise ApiError(ErrorCode.INVALID_REQUEST, "Duplicate topic in request.")
                planned.append(plan_partitions(topic, image, broker.rng))
                # Who does not want to wait is told that it took too long, even though it did not: as in Apache Kafka.
                too_late = request.timeout_ms <= 0 and not request.validate_only
                results.append(_result(topic, ErrorCode.REQUEST_TIMED_OUT if too_late else ErrorCode.NONE))
            except ApiError as error:
                results.append(_result(topic, error.code, error.message))
        return planned

    try:
        if not broker.cluster.is_controller:
            raise ApiError(ErrorCode.NOT_CONTROLLER)
        if request.validate_only:
            plan(broker.cluster.image)
        else:
            await broker.cluster.create_partitions(plan)
            await _wait_for_leaders(results, topics, request.timeout_ms, broker)
    except ApiError as error:
        results = [_result(topic, error.code, error.message) for topic in topics.values()]
    return CreatePartitionsResponse(results=results)


async def _wait_for_leaders(
    results: list[CreatePartitionsTopicResult],
    topics: dict[str, CreatePartitionsTopic],
    timeout_ms: int,
    broker: Broker,
) -> None:
    """Until this broker knows of all that was added; else REQUEST_TIMED_OUT."""
    grown = [result for result in results if result.error_code == ErrorCode.NONE]

    def is_known(image: MetadataImage, name: str) -> bool:
        topic = image.topics.get(name)
        return topic is not None and len(topic.partitions) >= topics[name].count

    if not await broker.cluster.wait_until(lambda image: all(is_known(image, each.name) for each in grown), timeout_ms):
        for result in grown:
            if not is_known(broker.cluster.image, result.name):
                result.error_code = ErrorCode.REQUEST_TIMED_OUT


def _result(topic: CreatePartitionsTopic, error: ErrorCode, message: str | None = None) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(name=topic.name, error_code=error, error_message=message)
