"""The image as a controller's UpdateMetadata changes it (Kafka class ZkMetadataCache).

Live brokers and the controller are replaced as a whole, partitions are merged: a request names those that have changed.
Leader -2 stands for a partition that is being deleted. Configs are not part of it and stay.

A request that a cut connection has held back may come after a later one. What it says of a partition is told from what
is newer by the version of the partition's node, which Apache Kafka does not look at.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from kpy.ids import ZERO_ID
from kpy.metadata.image import NO_LEADER, BrokerImage, MetadataImage, PartitionImage, TopicImage

if TYPE_CHECKING:
    # Not at run time: a single broker hears nothing from a controller.
    from kpy.wire.update_metadata import (
        UpdateMetadataBroker,
        UpdateMetadataPartitionState,
        UpdateMetadataRequest,
        UpdateMetadataTopicState,
    )

LEADER_DURING_DELETE = -2
UNKNOWN_EPOCH = -1
MAX_PARTITION = 1 << 20
"""A partition number above it is not believed: a topic's partitions are kept without gaps."""


def updated(image: MetadataImage, request: "UpdateMetadataRequest") -> MetadataImage:
    """The image after the request; what has not changed stays the same object."""
    topics = dict(image.topics)
    for state in request.topic_states:
        before = topics.get(state.topic_name)
        if (
            before is not None
            and ZERO_ID not in (before.topic_id, state.topic_id)
            and before.topic_id != state.topic_id
        ):
            before = None  # The topic was deleted and created again.
        topic = _topic(before, state)
        if topic is None:
            topics.pop(state.topic_name, None)
        else:
            topics[state.topic_name] = topic
    brokers = {broker.id: _broker(broker) for broker in request.live_brokers}
    return replace(
        image,
        controller_id=request.controller_id,
        brokers=image.brokers if brokers == image.brokers else brokers,
        topics=topics if request.topic_states else image.topics,
        topic_names={topic.topic_id: name for name, topic in topics.items()}
        if request.topic_states
        else image.topic_names,
    )


def with_configs(told: MetadataImage, stored: MetadataImage) -> MetadataImage:
    """What a controller has told, with the configs that the store has; `told` itself if it has them already."""
    stale = {
        name: replace(topic, configs=known.configs)
        for name, topic in told.topics.items()
        if (known := stored.topics.get(name)) is not None and known.configs != topic.configs
    }
    if not stale and told.broker_configs == stored.broker_configs:
        return told
    return replace(
        told, topics={**told.topics, **stale} if stale else told.topics, broker_configs=stored.broker_configs
    )


def _topic(before: TopicImage | None, state: "UpdateMetadataTopicState") -> TopicImage | None:
    partitions = {each.partition: each for each in before.partitions} if before is not None else {}
    for each in state.partition_states:
        if each.leader == LEADER_DURING_DELETE:
            partitions.pop(each.partition_index, None)
        elif 0 <= each.partition_index <= MAX_PARTITION and not _is_newer(partitions.get(each.partition_index), each):
            partitions[each.partition_index] = _partition(each)
    if not any(each.replicas for each in partitions.values()):
        return None
    topic_id = state.topic_id
    if topic_id == ZERO_ID and before is not None:
        topic_id = before.topic_id
    return TopicImage(
        state.topic_name, topic_id, _without_gaps(partitions), before.configs if before is not None else {}
    )


def _is_newer(known: PartitionImage | None, state: "UpdateMetadataPartitionState") -> bool:
    return known is not None and known.partition_epoch > state.zk_version


def _without_gaps(partitions: dict[int, PartitionImage]) -> tuple[PartitionImage, ...]:
    """By number; one that the controller has not told of yet, or that is deleted before others, has nobody."""
    return tuple(
        partitions.get(index) or PartitionImage(index, NO_LEADER, UNKNOWN_EPOCH, (), ())
        for index in range(max(partitions) + 1)
    )


def _partition(state: "UpdateMetadataPartitionState") -> PartitionImage:
    return PartitionImage(
        state.partition_index,
        state.leader,
        state.leader_epoch,
        tuple(state.replicas),
        tuple(state.isr),
        state.zk_version,
    )


def _broker(broker: "UpdateMetadataBroker") -> BrokerImage:
    return BrokerImage(broker.id, broker.rack, _endpoints(broker))


def _endpoints(broker: "UpdateMetadataBroker") -> dict[str, tuple[str, int]]:
    return {endpoint.listener: (endpoint.host, endpoint.port) for endpoint in broker.endpoints}
