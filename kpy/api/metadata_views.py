"""The cluster as clients see it who came in on one listener and speak one version of Metadata, encoded.

An image changes rarely and is asked for often, and a topic takes 5 us to put into words. So a view keeps the bytes of
each topic that it was asked for, as long as the image has that very TopicImage: after a change, topics that it did not
touch are not encoded again. If the live brokers change, all are, since partitions are described by who can be reached.

Whoever comes first after a change brings all views up to date, so none of them keeps anything of an older image. What
they hold is bounded by MAX_VIEWS times the image.
"""

from typing import NamedTuple, cast

from kpy.api.describe_cluster import CLUSTER_OPERATIONS
from kpy.controller.topics import is_internal
from kpy.errors import ErrorCode
from kpy.metadata.image import NO_LEADER, MetadataImage, PartitionImage, TopicImage
from kpy.wire.metadata import (
    FLEXIBLE_SINCE,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
    encode_response,
)
from kpy.wire.primitives import EncodedMessage, uvarint

FIRST_VERSION_WITH_LISTENER_NOT_FOUND = 6

TOPIC_OPERATIONS = 0b1101_1111_1000
"""Bits of the operations (AclOperation) that a topic knows: all are allowed while there is no authorizer."""

MAX_VIEWS = 16
"""More than the versions that the clients of one cluster speak. For another one the oldest view has to go."""

INT32_BYTES = 4


class ViewKey(NamedTuple):
    """What the encoding depends on besides the image."""

    listener: str
    version: int
    with_topic_operations: bool
    with_cluster_operations: bool


def view_of(image: MetadataImage, key: ViewKey, views: "dict[ViewKey, View]") -> "View":
    """The view of the current image; one of `views` if it can be, and from now on one of them."""
    view = views.get(key)
    if view is not None and view.image is image:
        return view
    for each in views.values():
        if each.image is not image:
            each.follow(image)
    if view is None:
        if len(views) == MAX_VIEWS:
            del views[next(iter(views))]
        view = views[key] = View(image, key)
    return view


class View:
    """Answers Metadata for one ViewKey, and knows the image that it does so from."""

    __slots__ = ("_behind_bytes", "_head", "_key", "_reachable", "_start", "_tail", "_topics", "image")

    def __init__(self, image: MetadataImage, key: ViewKey) -> None:
        self._key = key
        self._topics: dict[str, tuple[TopicImage, bytes]] = {}
        # The first byte in which an answer without topics and one with a topic differ is the last one of their count.
        without, with_one = self._encoded(MetadataResponse()), self._encoded(MetadataResponse(topics=[_NO_TOPIC]))
        self._start = next(at for at, byte in enumerate(without) if byte != with_one[at]) + 1
        """Where the first topic lies in an answer that has no brokers."""
        self._behind_bytes = len(without) - self._start
        self._take_up(image)

    def follow(self, image: MetadataImage) -> None:
        """From now on this is the image. What it does not have any more is forgotten."""
        if image.brokers != self.image.brokers:
            self._topics.clear()
        self._topics = {name: known for name, known in self._topics.items() if image.topics.get(name) is known[0]}
        self._take_up(image)

    def answer(self, topics: list[bytes]) -> EncodedMessage:
        """The response with these topics."""
        return EncodedMessage(b"".join((self._head, self._encoded_count(len(topics)), *topics, self._tail)))

    def topic(self, topic: TopicImage) -> bytes:
        """A topic of this view's image, for `answer`."""
        known = self._topics.get(topic.name)
        if known is None:
            known = self._topics[topic.name] = (topic, self.encoded_topic(self._described(topic)))
        return known[1]

    def encoded_topic(self, topic: MetadataResponseTopic) -> bytes:
        """A topic as it stands in the response. It gets the operations that are allowed, if they were asked for."""
        if self._key.with_topic_operations:
            topic.topic_authorized_operations = TOPIC_OPERATIONS
        answer = self._encoded(MetadataResponse(topics=[topic]))
        return answer[self._start : len(answer) - self._behind_bytes]

    def _take_up(self, image: MetadataImage) -> None:
        self.image = image
        listener = self._key.listener
        brokers = [
            MetadataResponseBroker(broker.broker_id, *broker.endpoints[listener], broker.rack)
            for broker in image.brokers.values()
            if listener in broker.endpoints
        ]
        self._reachable = frozenset(broker.node_id for broker in brokers)
        response = MetadataResponse(brokers=brokers, cluster_id=image.cluster_id, controller_id=image.controller_id)
        if self._key.with_cluster_operations:
            response.cluster_authorized_operations = CLUSTER_OPERATIONS
        answer = self._encoded(response)
        behind = len(answer) - self._behind_bytes
        self._head, self._tail = answer[: behind - len(self._encoded_count(0))], answer[behind:]

    def _encoded(self, response: MetadataResponse) -> bytes:
        return b"".join(cast("list[bytes]", encode_response(response, self._key.version)))

    def _encoded_count(self, count: int) -> bytes:
        is_flexible = FLEXIBLE_SINCE is not None and self._key.version >= FLEXIBLE_SINCE
        return uvarint(count + 1) if is_flexible else count.to_bytes(INT32_BYTES, "big")

    def _described(self, topic: TopicImage) -> MetadataResponseTopic:
        partitions = [self._partition(partition) for partition in topic.partitions]
        return MetadataResponseTopic(0, topic.name, topic.topic_id, is_internal(topic.name), partitions)

    def _partition(self, partition: PartitionImage) -> MetadataResponsePartition:
        version, reachable = self._key.version, self._reachable
        error, leader = ErrorCode.NONE, partition.leader
        replicas, isr = list(partition.replicas), list(partition.isr)
        offline = [broker_id for broker_id in replicas if broker_id not in reachable]
        if offline and version == 0:
            # The oldest clients cannot do with replicas that are not among the brokers.
            error = ErrorCode.REPLICA_NOT_AVAILABLE
            replicas = [broker_id for broker_id in replicas if broker_id in reachable]
            isr = [broker_id for broker_id in isr if broker_id in reachable]
        if leader not in reachable:
            without_listener = leader in self.image.brokers and version >= FIRST_VERSION_WITH_LISTENER_NOT_FOUND
            error = ErrorCode.LISTENER_NOT_FOUND if without_listener else ErrorCode.LEADER_NOT_AVAILABLE
            leader = NO_LEADER
        epoch = partition.leader_epoch
        return MetadataResponsePartition(error, partition.partition, leader, epoch, replicas, isr, offline)


_NO_TOPIC = MetadataResponseTopic()
