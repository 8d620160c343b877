"""CreateTopics (19), versions 0-7.

All topics of a request that can be created are, with their leaders, before this answers; each has its own answer. Only
the controller creates topics; other brokers answer NOT_CONTROLLER. Counts of -1 mean the broker's defaults (KIP-464),
version 5 answers with the topic's configs (KIP-525), version 7 with its id.
"""

from collections import Counter

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.config_description import describe_topic
from kpy.controller.topics import CLUSTER_METADATA, TopicDefaults, plan_topic
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.topic_config import validate_topic_configs
from kpy.wire.create_topics import (
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

FIRST_VERSION_WITH_CONFIGS = 5


async def create_topics(request: CreateTopicsRequest, client: Client, broker: Broker) -> CreateTopicsResponse:
    if not broker.cluster.is_controller:
        return _refused(request, ApiError(ErrorCode.NOT_CONTROLLER))
    times = Counter(topic.name for topic in request.topics)
    defaults = TopicDefaults(broker.config.num_partitions, broker.config.default_replication_factor)
    results: list[CreatableTopicResult] = []

    def plan(image: MetadataImage) -> list[TopicImage]:
        planned: dict[str, TopicImage] = {}
        results.clear()
        for asked in request.topics:
            try:
                _check_allowed(asked.name, times[asked.name])
                topic = plan_topic(asked, image, planned, defaults, broker.rng)
                validate_topic_configs(topic.configs, broker.config)
                planned[topic.name] = topic
                results.append(_created(topic, request, client, broker))
            except ApiError as error:
                result = CreatableTopicResult(name=asked.name, error_code=error.code, error_message=error.message)
                results.append(result)
        return list(planned.values())

    if request.validate_only:
        plan(broker.cluster.image)
    else:
        try:
            await broker.cluster.create_topics(plan)
        except ApiError as error:
            return _refused(request, error)
        await _wait_for_leaders(results, request.timeout_ms, broker)
    return CreateTopicsResponse(topics=results)


async def _wait_for_leaders(results: list[CreatableTopicResult], timeout_ms: int, broker: Broker) -> None:
    """Until this broker knows of all that was created, as others then do or soon will; else REQUEST_TIMED_OUT."""
    created = [result for result in results if result.error_code == ErrorCode.NONE]
    names = {result.name for result in created}
    if not await broker.cluster.wait_until(lambda image: names <= image.topics.keys(), timeout_ms):
        for result in created:
            if result.name not in broker.cluster.image.topics:
                result.error_code = ErrorCode.REQUEST_TIMED_OUT


def _refused(request: CreateTopicsRequest, error: ApiError) -> CreateTopicsResponse:
    return CreateTopicsResponse(
        topics=[
            CreatableTopicResult(name=topic.name, error_code=error.code, error_message=error.message)
            for topic in request.topics
        ]
    )


def _check_allowed(name: str, times: int) -> None:
    if name == CLUSTER_METADATA:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Creation of internal topic {CLUSTER_METADATA} is prohibited.")
    if times > 1:
        raise ApiError(ErrorCode.INVALID_REQUEST, "Found multiple entries for this topic.")


def _created(topic: TopicImage, request: CreateTopicsRequest, client: Client, broker: Broker) -> CreatableTopicResult:
    result = CreatableTopicResult(name=topic.name, error_message=None)
    if not request.validate_only:
        result.topic_id = topic.topic_id
        if request.timeout_ms <= 0:
            # Who does not want to wait is told that it took too long, even though it did not: as in Apache Kafka.
            result.error_code = ErrorCode.REQUEST_TIMED_OUT
            return result
    result.num_partitions = len(topic.partitions)
    result.replication_factor = len(topic.partitions[0].replicas)
    if client.version >= FIRST_VERSION_WITH_CONFIGS:
        result.configs = [
            CreatableTopicConfigs(
                name=config.name,
                value=config.value,
                read_only=config.read_only,
                config_source=config.source,
                is_sensitive=config.sensitive,
            )
            for config in describe_topic(topic.configs, broker.config)
        ]
    return result
