"""Metadata (3), versions 0-13.

Who leads which partition, and how the brokers are reached by the listener that the client came in on. The API that
clients ask first, and poll. A topic that is asked for by name and missing is created if both the client and
auto.create.topics.enable allow it; versions below 4 always allow. Names are known to be null, and ids to count, from
version 12 on (KIP-516).

Deviation: a topic that the controller has just created is answered complete. Apache Kafka answers LEADER_NOT_AVAILABLE
and has the client ask again, because there the creation goes on in the background; so does a broker here that is not
the controller.
"""

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.metadata_views import View, ViewKey, view_of
from kpy.config import BrokerConfig
from kpy.controller.topics import (
    CONSUMER_OFFSETS,
    TRANSACTION_STATE,
    TopicDefaults,
    is_internal,
    name_error,
    plan_topic,
)
from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig
from kpy.wire.metadata import MetadataRequest, MetadataResponse, MetadataResponseTopic
from kpy.wire.primitives import EncodedMessage

FIRST_VERSION_WITH_TOPIC_IDS = 12


def metadata(
    request: MetadataRequest, client: Client, broker: Broker
) -> MetadataResponse | EncodedMessage | Coroutine[Any, Any, EncodedMessage]:
    asked = request.topics
    if client.version < FIRST_VERSION_WITH_TOPIC_IDS and any(
        topic.name is None or topic.topic_id != ZERO_ID for topic in asked or ()
    ):
        return _refused(request)
    if request.allow_auto_topic_creation and broker.config.auto_create_topics_enable:
        topics = broker.cluster.image.topics
        missing = [
            topic.name for topic in asked or () if topic.name and topic.topic_id == ZERO_ID and topic.name not in topics
        ]
        if missing:
            return _create_and_answer(missing, request, client, broker)
    return _answer(request, client, broker, {})


async def _create_and_answer(
    missing: Sequence[str], request: MetadataRequest, client: Client, broker: Broker
) -> EncodedMessage:
    return _answer(request, client, broker, await create_missing(missing, broker))


def _answer(
    request: MetadataRequest, client: Client, broker: Broker, errors: Mapping[str, ErrorCode]
) -> EncodedMessage:
    """`errors` are why topics could not be created."""
    asked = request.topics
    image = broker.cluster.image
    key = ViewKey(
        client.listener,
        client.version,
        request.include_topic_authorized_operations,
        request.include_cluster_authorized_operations,
    )
    view = view_of(image, key, broker.metadata_views)
    if asked is None or (client.version == 0 and not asked):
        return view.answer([view.topic(topic) for topic in image.topics.values()])
    # Naming a topic twice brings it once, as in Apache Kafka.
    names = dict.fromkeys((topic.name, topic.topic_id) for topic in asked)
    return view.answer([_asked_topic(name, topic_id, errors, view) for name, topic_id in names])


async def create_missing(names: Iterable[str], broker: Broker) -> dict[str, ErrorCode]:
    """Creates those of the topics that do not exist, as the broker's configuration says. Returns why some could not be.

    Internal topics get what their coordinator needs of them (Kafka class AutoTopicCreationManager).
    """
    names = list(dict.fromkeys(names))
    errors: dict[str, ErrorCode] = {}
    config = broker.config
    defaults = TopicDefaults(config.num_partitions, config.default_replication_factor)

    def plan(image: MetadataImage) -> list[TopicImage]:
        planned: dict[str, TopicImage] = {}
        errors.clear()
        for name in names:
            if name in image.topics:
                continue
            try:
                planned[name] = plan_topic(_creatable_topic(name, config), image, planned, defaults, broker.rng)
            except ApiError as error:
                errors[name] = error.code
        return list(planned.values())

    with suppress(ApiError):  # What is not there is answered LEADER_NOT_AVAILABLE, and asked for again.
        await broker.cluster.create_topics(plan)
    for name in names:
        if name not in broker.cluster.image.topics:
            # Another broker, the controller, is at it.
            errors.setdefault(name, ErrorCode.LEADER_NOT_AVAILABLE)
    return errors


def _creatable_topic(name: str, config: BrokerConfig) -> CreatableTopic:
    """What CreateTopics would be asked for, had somebody asked."""
    if name == CONSUMER_OFFSETS:
        return CreatableTopic(
            name=name,
            num_partitions=config.offsets_topic_num_partitions,
            replication_factor=config.offsets_topic_replication_factor,
            configs=[
                CreatableTopicConfig(name="cleanup.policy", value="compact"),
                CreatableTopicConfig(name="compression.type", value="producer"),
                CreatableTopicConfig(name="segment.bytes", value=str(config.offsets_topic_segment_bytes)),
            ],
        )
    if name == TRANSACTION_STATE:
        return CreatableTopic(
            name=name,
            num_partitions=config.transaction_state_log_num_partitions,
            replication_factor=config.transaction_state_log_replication_factor,
            configs=[
                CreatableTopicConfig(name="cleanup.policy", value="compact"),
                CreatableTopicConfig(name="compression.type", value="uncompressed"),
                CreatableTopicConfig(name="min.insync.replicas", value=str(config.transaction_state_log_min_isr)),
                CreatableTopicConfig(name="segment.bytes", value=str(config.transaction_state_log_segment_bytes)),
                CreatableTopicConfig(name="unclean.leader.election.enable", value="false"),
            ],
        )
    return CreatableTopic(
        name=name, num_partitions=config.num_partitions, replication_factor=config.default_replication_factor
    )


def _asked_topic(name: str | None, topic_id: bytes, errors: Mapping[str, ErrorCode], view: View) -> bytes:
    """One topic of the request, by id if it has one."""
    image = view.image
    if topic_id != ZERO_ID or name is None:
        name = image.topic_names.get(topic_id)
        if name is None:
            unknown = MetadataResponseTopic(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=topic_id)
            return view.encoded_topic(unknown)
    topic = image.topics.get(name)
    if topic is not None:
        return view.topic(topic)
    error = errors.get(name, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if name_error(name) is not None:
        error = ErrorCode.INVALID_TOPIC_EXCEPTION
    return view.encoded_topic(MetadataResponseTopic(error_code=error, name=name, is_internal=is_internal(name)))


def _refused(request: MetadataRequest) -> MetadataResponse:
    """The whole request is invalid: each topic says so, and there are no brokers."""
    return MetadataResponse(
        topics=[
            MetadataResponseTopic(error_code=ErrorCode.INVALID_REQUEST, name=topic.name or "", topic_id=topic.topic_id)
            for topic in request.topics or ()
        ],
        error_code=ErrorCode.INVALID_REQUEST,
    )
