"""The cluster's metadata as this broker knows and changes it: `Cluster.image`, kept in a MetadataStore.

Theory of operation. The store holds Apache Kafka's znodes; the image is what they say, read once at the start. Each
operation decides on the image (kpy/controller), writes all its nodes in one transaction of the store, then puts a new
image in place of the old and tells `on_change`, all before it returns. So an answer to a client follows a durable
change that the replica layer has applied, a crash leaves whole operations only, and a reader that holds an image
holds a consistent view.

Where the replica layer is one crash behind (logs of a topic whose deletion was committed, logs not yet made), the
first image after the start tells it, by topic ids: a topic that is created again has another id.

Leader epochs. A clean restart changes none, like Apache Kafka's with a single ZooKeeper-mode broker. After an unclean
one the log may have lost acknowledged records (a power cut; there is no other replica), and offsets may be given out
again: then `start_leader_epochs` raises every epoch in one transaction, so that consumers notice by
OffsetForLeaderEpoch (KIP-320).
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from kpy import ids
from kpy.controller import topics as controller
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.metadata import znodes
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.metadata.store import BadVersion, Create, Delete, MetadataStore, Op, SetData, with_parents
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig

PRODUCER_ID_BLOCK_SIZE = 1000
MAX_PRODUCER_ID = 2**63 - 1

CONTROLLER_EPOCH = 1
"""What partition states carry: nobody ever takes the role over from a single node."""

T = TypeVar("T")

ConfigEntity = Literal["topics", "brokers"]
"""What has dynamic configs: the directories below /config."""


class Cluster:
    """The image, and every change to it. Single-threaded; each change is synchronous.

    Set `on_change` before the first change: it is called with each new image, synchronously. `cluster_id` is used only
    if the store has none yet. Raises StorageError if the store holds what is not Kafka's.
    """

    def __init__(
        self,
        store: MetadataStore,
        *,
        broker_id: int,
        rng: random.Random,
        now_ms: Callable[[], int],
        cluster_id: str | None = None,
    ) -> None:
        self._store = store
        self._broker_id = broker_id
        self._rng = rng
        self._now_ms = now_ms
        self._producer_ids = iter(range(0))
        self.on_change: Callable[[MetadataImage], None] = _ignore
        self._make_layout(cluster_id or ids.to_text(ids.new_id(rng)))
        self.image = self._read_image()

    def register(
        self, endpoints: Mapping[str, tuple[str, int]], security_protocols: Mapping[str, str], rack: str | None = None
    ) -> None:
        """Puts this broker among the live ones, reachable at `endpoints`: advertised host and port by listener name."""
        registration = znodes.BrokerRegistration(dict(endpoints), dict(security_protocols), rack)
        path = znodes.broker_path(self._broker_id)
        data = znodes.encode_broker(registration, self._now_ms())
        if self._store.exists(path):
            self._store.set(path, data)
        else:
            self._store.create(path, data, ephemeral=True)
        broker = BrokerImage(self._broker_id, rack, dict(endpoints))
        self._publish(replace(self.image, brokers={**self.image.brokers, self._broker_id: broker}))

    def start_leader_epochs(self) -> None:
        """Raises the leader epoch of every partition that this broker leads, after its logs were not closed cleanly."""
        ops: list[Op] = []
        raised: dict[str, TopicImage] = {}
        for topic in self.image.topics.values():
            partitions = list(topic.partitions)
            for index, partition in enumerate(topic.partitions):
                if partition.leader == self._broker_id:
                    partitions[index] = replace(partition, leader_epoch=partition.leader_epoch + 1)
                    path = znodes.partition_state_path(topic.name, index)
                    ops.append(SetData(path, _encode_state(partitions[index])))
            if partitions != list(topic.partitions):
                raised[topic.name] = replace(topic, partitions=tuple(partitions))
        if ops:
            self._store.multi(ops)
            self._publish(replace(self.image, topics={**self.image.topics, **raised}))

    def create_topics(self, topics: Sequence[TopicImage]) -> None:
        """Creates planned topics (kpy/controller/topics.py) in one transaction."""
        ops: list[Op] = []
        for topic in topics:
            config_path = znodes.topic_config_path(topic.name)
            configs = znodes.encode_config(topic.configs)
            # A config node can outlive, or come before, its topic: old tools write one first.
            ops.append(
                SetData(config_path, configs) if self._store.exists(config_path) else Create(config_path, configs)
            )
            ops.append(Create(znodes.topic_path(topic.name), _encode_topic(topic)))
            ops.append(Create(znodes.partitions_path(topic.name)))
            ops += _create_partitions(topic.name, topic.partitions)
        self._store.multi(ops)
        self._publish_topics({**self.image.topics, **{topic.name: topic for topic in topics}})

    def create_internal_topic(
        self, name: str, num_partitions: int, replication_factor: int, configs: Mapping[str, str]
    ) -> TopicImage:
        """A topic that a coordinator keeps its state in, created unless it exists. Raises ApiError as `plan_topic`."""
        existing = self.image.topics.get(name)
        if existing is not None:
            return existing
        request = CreatableTopic(
            name=name,
            num_partitions=num_partitions,
            replication_factor=replication_factor,
            configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
        )
        defaults = controller.TopicDefaults(num_partitions, replication_factor)
        topic = controller.plan_topic(request, self.image, (), defaults, self._rng)
        self.create_topics([topic])
        return topic

    def create_partitions(self, topics: Sequence[TopicImage]) -> None:
        """Puts planned topics, which have more partitions, in place of what they were, in one transaction."""
        ops: list[Op] = []
        for topic in topics:
            ops.append(SetData(znodes.topic_path(topic.name), _encode_topic(topic)))
            ops += _create_partitions(topic.name, topic.partitions[len(self.image.topics[topic.name].partitions) :])
        self._store.multi(ops)
        self._publish_topics({**self.image.topics, **{topic.name: topic for topic in topics}})

    def delete_topics(self, names: Iterable[str]) -> None:
        """Deletes topics with their configs in one transaction; the replica layer drops their logs in `on_change`."""
        doomed = frozenset(names)
        ops: list[Op] = []
        for name in doomed:
            # Children come after their parents in a sorted listing, and have to go first.
            ops += [Delete(path) for path in sorted(self._store.tree(znodes.topic_path(name)), reverse=True)]
            if self._store.exists(znodes.topic_config_path(name)):
                ops.append(Delete(znodes.topic_config_path(name)))
        self._store.multi(ops)
        self._publish_topics({name: topic for name, topic in self.image.topics.items() if name not in doomed})

    def alter_configs(self, entity: ConfigEntity, name: str, overrides: Mapping[str, str]) -> None:
        """Puts `overrides`, already validated, in place of all that `name` had: a topic, a broker id as text, or ""."""
        overrides = dict(overrides)
        if entity == "topics":
            path = znodes.topic_config_path(name)
            topic = replace(self.image.topics[name], configs=overrides)
            image = replace(self.image, topics={**self.image.topics, name: topic})
        else:
            path = znodes.broker_config_path(name)
            image = replace(self.image, broker_configs={**self.image.broker_configs, name: overrides})
        data = znodes.encode_config(overrides)
        if self._store.exists(path):
            self._store.set(path, data)
        else:
            self._store.create(path, data)
        self._publish(image)

    def next_producer_id(self) -> int:
        """An id that no producer of this cluster has or ever had."""
        producer_id = next(self._producer_ids, None)
        if producer_id is None:
            first, count = self.allocate_producer_ids()
            self._producer_ids = iter(range(first + 1, first + count))
            producer_id = first
        return producer_id

    def allocate_producer_ids(self) -> tuple[int, int]:
        """Takes the next block of producer ids for this broker: the first one, and how many (Kafka class
        ZkProducerIdManager).

        What is left of a block when the broker stops is never used.
        """
        while True:
            node = self._store.get(znodes.PRODUCER_ID_BLOCK)
            first = 0
            if node.data is not None:
                first = _decoded(znodes.PRODUCER_ID_BLOCK, znodes.decode_producer_id_block, node.data).last + 1
            last = first + PRODUCER_ID_BLOCK_SIZE - 1
            if last > MAX_PRODUCER_ID:
                raise ApiError(ErrorCode.UNKNOWN_SERVER_ERROR, "All producer ids have been given out.")
            block = znodes.encode_producer_id_block(znodes.ProducerIdBlock(self._broker_id, first, last))
            try:
                self._store.set(znodes.PRODUCER_ID_BLOCK, block, node.version)
            except BadVersion:
                continue  # Another broker took this block; the next one is free, or the one after.
            return first, PRODUCER_ID_BLOCK_SIZE

    def learn(self, image: MetadataImage) -> None:
        """Takes what a controller has told, which is in its own store and not in this one."""
        self._publish(image)

    def close(self) -> None:
        self._store.close()

    def _make_layout(self, cluster_id: str) -> None:
        ops: list[Op] = [Create(path) for path in with_parents(znodes.PERSISTENT_PATHS) if not self._store.exists(path)]
        if not self._store.exists(znodes.CLUSTER_ID):
            ops.append(Create(znodes.CLUSTER_ID, znodes.encode_cluster_id(cluster_id)))
        if ops:
            self._store.multi(ops)

    def _read_image(self) -> MetadataImage:
        topics = self._read_topics()
        brokers: dict[int, BrokerImage] = {}
        for name in self._store.children(znodes.BROKER_IDS):
            broker_id = int(name)
            path = znodes.broker_path(broker_id)
            registration = _decoded(path, znodes.decode_broker, self._store.get(path).data)
            brokers[broker_id] = BrokerImage(broker_id, registration.rack, registration.endpoints)
        broker_configs: dict[str, Mapping[str, str]] = {}
        for name in self._store.children(znodes.BROKER_CONFIGS):
            broker = "" if name == znodes.DEFAULT_ENTITY else name
            path = znodes.broker_config_path(broker)
            broker_configs[broker] = _decoded(path, znodes.decode_config, self._store.get(path).data)
        return MetadataImage(
            cluster_id=_decoded(znodes.CLUSTER_ID, znodes.decode_cluster_id, self._store.get(znodes.CLUSTER_ID).data),
            controller_id=self._broker_id,
            brokers=brokers,
            topics=topics,
            topic_names={topic.topic_id: name for name, topic in topics.items()},
            broker_configs=broker_configs,
        )

    def _read_topics(self) -> dict[str, TopicImage]:
        # Two sweeps, however many topics there are.
        nodes = self._store.tree(znodes.TOPICS)
        config_nodes = self._store.tree(znodes.TOPIC_CONFIGS)
        topics: dict[str, TopicImage] = {}
        for name in self._store.children(znodes.TOPICS):
            path = znodes.topic_path(name)
            topic = _decoded(path, znodes.decode_topic, nodes[path].data)
            partitions: list[PartitionImage] = []
            for partition, replicas in sorted(topic.replicas.items()):
                state_path = znodes.partition_state_path(name, partition)
                if state_path not in nodes:
                    raise StorageError(f"The metadata store has no {state_path}.")
                state = _decoded(state_path, znodes.decode_partition_state, nodes[state_path].data)
                partitions.append(PartitionImage(partition, state.leader, state.leader_epoch, replicas, state.isr))
            config_path = znodes.topic_config_path(name)
            config_node = config_nodes.get(config_path)
            configs = {} if config_node is None else _decoded(config_path, znodes.decode_config, config_node.data)
            topics[name] = TopicImage(name, topic.topic_id, tuple(partitions), configs)
        return topics

    def _publish_topics(self, topics: Mapping[str, TopicImage]) -> None:
        names = {topic.topic_id: name for name, topic in topics.items()}
        self._publish(replace(self.image, topics=topics, topic_names=names))

    def _publish(self, image: MetadataImage) -> None:
        self.image = image
        self.on_change(image)


def _ignore(image: MetadataImage) -> None:
    """Stands in `on_change` until somebody listens."""


def _decoded(path: str, decode: Callable[[bytes | None], T], data: bytes | None) -> T:
    try:
        return decode(data)
    except ValueError as error:
        raise StorageError(f"The metadata store holds at {path} what is not Kafka's: {error}.") from error


def _encode_topic(topic: TopicImage) -> bytes:
    return znodes.encode_topic(
        znodes.TopicNode(topic.topic_id, {partition.partition: partition.replicas for partition in topic.partitions})
    )


def _encode_state(partition: PartitionImage) -> bytes:
    state = znodes.PartitionState(partition.leader, partition.leader_epoch, partition.isr, CONTROLLER_EPOCH)
    return znodes.encode_partition_state(state)


def _create_partitions(topic: str, partitions: Iterable[PartitionImage]) -> list[Op]:
    ops: list[Op] = []
    for partition in partitions:
        ops.append(Create(znodes.partition_path(topic, partition.partition)))
        ops.append(Create(znodes.partition_state_path(topic, partition.partition), _encode_state(partition)))
    return ops
