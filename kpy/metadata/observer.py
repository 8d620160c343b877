"""What the metadata store says, kept up to date: Kafka's nodes read into images, each read leaving a watch.

Theory of operation. `read_all` reads everything once. From then on the store tells of each node that changes, and
`refresh` reads again what was told of: a topic with its states and configs, the brokers, the configs of brokers, the
requests for deletions, the controller. What has not changed stays the same object.

Of several brokers only the controller changes states, and one that takes over reads everything. So none of them watches
a state once it is there: to be told of each of its changes would have all brokers read all of them at every failover.

A node that cannot be understood (damaged, or written by a newer version) is never guessed at. At the start it stops the
broker, before logs are kept by the wrong configs. Later it is named once in the log, and what was known before stays:
in particular, no log is deleted but for a topic whose node is gone.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from kpy import ids
from kpy.controller.machine import Observed
from kpy.controller.topics import name_error
from kpy.errors import StorageError
from kpy.metadata import znodes
from kpy.metadata.image import (
    NO_CONTROLLER,
    NO_LEADER,
    NO_STATE,
    BrokerImage,
    MetadataImage,
    PartitionImage,
    TopicImage,
)
from kpy.metadata.store import MetadataStore, Node, NoNode

log = logging.getLogger("kpy.metadata")

EVERYTHING = "/"
TOOL_REQUESTS = (znodes.REASSIGNMENTS, znodes.PREFERRED_ELECTIONS)

ILLEGAL_NAME = -2
"""As a version: it is not what the node says that is wrong."""

T = TypeVar("T")

ConfigProblem = Callable[[Mapping[str, str]], str | None]
"""Why these cannot be the configs of a topic; None if they can."""


class Observer:
    """`observed` is for the controller, `image` for everybody else. Both are as of the last read."""

    def __init__(self, store: MetadataStore, topic_config_problem: ConfigProblem, *, watches_states: bool) -> None:
        self._store = store
        self._topic_config_problem = topic_config_problem
        self._watches_states = watches_states
        self._is_first_read = True
        self._named: dict[str, int] = {}
        """Nodes that could not be understood, with the version that was named in the log."""
        self._without_id: dict[str, bytes] = {}
        self._visible: dict[str, TopicImage] = {}
        self._changed_topics: set[str] = set()
        self._watched: set[str] = set()
        """Topics that have been read. Those that this broker has just created have not, and so have no watches yet."""
        self.cluster_id = ""
        self.controller_id = NO_CONTROLLER
        self.controller_session = 0
        """The session in which the controller was elected."""
        self.brokers: dict[int, BrokerImage] = {}
        self.topics: dict[str, TopicImage] = {}
        self.broker_configs: dict[str, Mapping[str, str]] = {}
        self.deletions: frozenset[str] = frozenset()
        self.log_dir_events: tuple[str, ...] = ()
        """The paths of notes for the controller that data directories have failed."""
        self.tool_requests: dict[str, Node] = {}
        """What tools ask of the controller: those of the nodes TOOL_REQUESTS that are there."""

    @property
    def observed(self) -> Observed:
        return Observed(self.brokers, self.topics, self._without_id, self.deletions)

    def image(self, before: MetadataImage | None = None) -> MetadataImage:
        """The image as of now: `before` itself if nothing in it has changed."""
        topics = {name: visible for name, topic in self.topics.items() if (visible := self._seen(name, topic))}
        if before is not None and before.topics == topics:
            topics, topic_names = before.topics, before.topic_names
        else:
            topic_names = {topic.topic_id: name for name, topic in topics.items()}
        image = MetadataImage(
            cluster_id=self.cluster_id,
            controller_id=self.controller_id,
            brokers=dict(self.brokers),
            topics=topics,
            topic_names=topic_names,
            broker_configs=dict(self.broker_configs),
        )
        return before if before is not None and before == image else image

    def put_topic(self, topic: TopicImage) -> None:
        """Takes note of a topic as it has just been written."""
        self.topics[topic.name] = topic
        self._changed_topics.add(topic.name)
        self._without_id.pop(topic.name, None)

    def take_changed_topics(self) -> frozenset[str]:
        """The topics that are different from what they were when this was asked last."""
        changed, self._changed_topics = frozenset(self._changed_topics), set()
        return changed

    def drop_topic(self, name: str) -> None:
        self.topics.pop(name, None)
        self._changed_topics.discard(name)
        self._without_id.pop(name, None)
        self._watched.discard(name)

    async def read_all(self) -> None:
        """Raises StorageError: the first time for a node that cannot be understood, and later where this is not the
        cluster any more that it was: a ZooKeeper that was emptied is not a reason to delete logs.
        """
        path = znodes.CLUSTER_ID
        node = await self._store.find(path)
        cluster_id = self.cluster_id if node is None else self._decoded(path, node, znodes.decode_cluster_id)
        if node is None or (self.cluster_id and cluster_id not in (None, self.cluster_id)):
            found = "none" if node is None else cluster_id
            raise StorageError(f"The metadata store has another cluster id than {self.cluster_id or 'one'}: {found}.")
        self.cluster_id = cluster_id or self.cluster_id
        if self._is_first_read:
            await self._check_features()
        await self._read_controller()
        await self._read_brokers()
        await self._read_broker_configs()
        await self._read_topic_names(everything=True)
        await self._read_deletions()
        await self._read_log_dir_events()
        await self._read_tool_requests(TOOL_REQUESTS)
        self._is_first_read = False

    async def refresh(self, paths: Iterable[str]) -> None:
        """Reads again what the store has told of. Raises StorageError where what every cluster has is gone."""
        try:
            await self._refresh(set(paths))
        except NoNode as missing:
            raise StorageError(f"The metadata store has no {missing.path} any more.") from missing

    async def _refresh(self, changed: set[str]) -> None:
        if EVERYTHING in changed:
            await self.read_all()
            return
        if znodes.CONTROLLER in changed:
            await self._read_controller()
        if any(path.startswith(znodes.BROKER_IDS) for path in changed):
            await self._read_brokers()
        if any(path.startswith(znodes.BROKER_CONFIGS) for path in changed):
            await self._read_broker_configs()
        await self.read_topics({name for path in changed if (name := znodes.topic_of(path))})
        if znodes.TOPICS in changed:
            await self._read_topic_names(everything=False)
        if znodes.DELETE_TOPICS in changed:
            await self._read_deletions()
        if znodes.LOG_DIR_EVENTS in changed:
            await self._read_log_dir_events()
        await self._read_tool_requests(path for path in TOOL_REQUESTS if path in changed)

    async def read_topics(self, names: Iterable[str]) -> None:
        """Reads topics, with their states and configs. Those that do not exist are dropped."""
        names = [name for name in names if self._is_legal(name)]
        paths = [znodes.topic_path(name) for name in names] + [znodes.topic_config_path(name) for name in names]
        self._watched.update(names)
        nodes = await self._store.find_all(paths, watch=True)
        read: list[tuple[str, znodes.TopicNode, Mapping[str, str]]] = []
        for name, node, config_node in zip(names, nodes, nodes[len(names) :], strict=False):
            if node is None:
                self.drop_topic(name)
                continue
            topic = self._decoded(znodes.topic_path(name), node, znodes.decode_topic)
            configs: Mapping[str, str] | None = {}
            if config_node is not None:
                configs = self._decoded(znodes.topic_config_path(name), config_node, self._topic_config)
            if topic is not None and configs is not None:
                read.append((name, topic, configs))
        state_paths = [
            znodes.partition_state_path(name, partition) for name, topic, _ in read for partition in topic.replicas
        ]
        states = await self._find_states(state_paths)
        for name, topic, configs in read:
            self._take_topic(name, topic, configs, states)

    def _is_legal(self, name: str) -> bool:
        """A topic's name becomes that of a directory: nothing is done for one that no broker would have created."""
        problem = name_error(name)
        if problem is not None:
            self._name(znodes.topic_path(name), ILLEGAL_NAME, problem)
        return problem is None

    def _topic_config(self, data: bytes | None) -> Mapping[str, str]:
        configs = znodes.decode_config(data)
        problem = self._topic_config_problem(configs)
        if problem is not None:
            raise ValueError(problem)
        return configs

    async def _find_states(self, paths: Sequence[str]) -> Mapping[str, Node | None]:
        """States by their paths; those that are not there yet are watched in any case."""
        found = dict(zip(paths, await self._store.find_all(paths, watch=self._watches_states), strict=True))
        missing = [path for path, node in found.items() if node is None]
        if missing and not self._watches_states:
            found.update(zip(missing, await self._store.find_all(missing, watch=True), strict=True))
        return found

    def _take_topic(
        self, name: str, node: znodes.TopicNode, configs: Mapping[str, str], states: Mapping[str, Node | None]
    ) -> None:
        before = self.topics.get(name)
        topic_id = node.topic_id
        if topic_id == ids.ZERO_ID:
            topic_id = before.topic_id if before is not None else ids.ZERO_ID
            self._without_id[name] = topic_id
        else:
            self._without_id.pop(name, None)
        if before is not None and before.topic_id not in (ids.ZERO_ID, topic_id):
            before = None
        known = before.partitions if before is not None else ()
        partitions: list[PartitionImage] = []
        for index in sorted(node.replicas):
            had_state = index < len(known) and known[index].partition_epoch != NO_STATE
            partition = self._partition(name, index, node, states[znodes.partition_state_path(name, index)], had_state)
            if partition is None:
                return
            partitions.append(partition)
        topic = TopicImage(name, topic_id, tuple(partitions), configs)
        if topic != before:
            self.topics[name] = topic
            self._changed_topics.add(name)

    def _partition(
        self, topic: str, index: int, node: znodes.TopicNode, state_node: Node | None, had_state: bool
    ) -> PartitionImage | None:
        """A partition as its topic's node and its state say; None where that cannot be understood."""
        path = znodes.partition_state_path(topic, index)
        replicas = node.replicas[index]
        if state_node is None:
            if had_state:
                self._name(path, -1, "it is gone, while its topic is not")
                return None
            return PartitionImage(index, NO_LEADER, 0, replicas, (), NO_STATE)
        state = self._decoded(path, state_node, znodes.decode_partition_state)
        if state is None:
            return None
        return PartitionImage(
            index,
            state.leader,
            state.leader_epoch,
            replicas,
            replicas if state.isr == replicas else state.isr,
            state_node.version,
            state.leader_recovery_state != 0,
            node.adding.get(index, ()),
            node.removing.get(index, ()),
        )

    def _seen(self, name: str, topic: TopicImage) -> TopicImage | None:
        """A topic as far as it exists for clients: with its id, and those partitions that have been given a state."""
        count = next(
            (index for index, each in enumerate(topic.partitions) if each.partition_epoch == NO_STATE),
            len(topic.partitions),
        )
        if topic.topic_id == ids.ZERO_ID or count == 0:
            return None
        if count < len(topic.partitions):
            topic = replace(topic, partitions=topic.partitions[:count])
        seen = self._visible.get(name)
        if seen == topic:
            return seen
        self._visible[name] = topic
        return topic

    async def _read_topic_names(self, *, everything: bool) -> None:
        names = await self._store.children(znodes.TOPICS, watch=True)
        await self.read_topics(name for name in names if everything or name not in self._watched)
        existing = set(names)
        for name in [name for name in self.topics if name not in existing]:
            self.drop_topic(name)
        self._visible = {name: topic for name, topic in self._visible.items() if name in self.topics}

    async def _read_brokers(self) -> None:
        names = await self._store.children(znodes.BROKER_IDS, watch=True)
        nodes = await self._store.find_all([f"{znodes.BROKER_IDS}/{name}" for name in names], watch=True)
        brokers: dict[int, BrokerImage] = {}
        for name, node in zip(names, nodes, strict=True):
            if node is None or not name.isdecimal():
                continue
            broker_id = int(name)
            registration = self._decoded(f"{znodes.BROKER_IDS}/{name}", node, znodes.decode_broker)
            before = self.brokers.get(broker_id)
            if registration is not None:
                brokers[broker_id] = BrokerImage(
                    broker_id,
                    registration.rack,
                    registration.endpoints,
                    node.czxid,
                    registration.security_protocols,
                )
            elif before is not None:
                brokers[broker_id] = before
        self.brokers = dict(sorted(brokers.items()))

    async def _read_broker_configs(self) -> None:
        names = await self._store.children(znodes.BROKER_CONFIGS, watch=True)
        nodes = await self._store.find_all([f"{znodes.BROKER_CONFIGS}/{name}" for name in names], watch=True)
        broker_configs: dict[str, Mapping[str, str]] = {}
        for name, node in zip(names, nodes, strict=True):
            broker = "" if name == znodes.DEFAULT_ENTITY else name
            if node is None:
                continue
            configs = self._decoded(f"{znodes.BROKER_CONFIGS}/{name}", node, znodes.decode_config)
            if configs is None:
                configs = self.broker_configs.get(broker)
            if configs is not None:
                broker_configs[broker] = configs
        self.broker_configs = broker_configs

    async def _check_features(self) -> None:
        """Raises StorageError where the cluster demands of its brokers what kpy does not have (KIP-584)."""
        node = await self._store.find(znodes.FEATURE)
        features = None if node is None else self._decoded(znodes.FEATURE, node, znodes.decode_features)
        if features:
            raise StorageError(f"The cluster has finalized features that kpy does not have: {', '.join(features)}.")

    async def _read_deletions(self) -> None:
        self.deletions = frozenset(await self._store.children(znodes.DELETE_TOPICS, watch=True))

    async def _read_log_dir_events(self) -> None:
        names = await self._store.children(znodes.LOG_DIR_EVENTS, watch=True)
        self.log_dir_events = tuple(f"{znodes.LOG_DIR_EVENTS}/{name}" for name in names)

    async def _read_tool_requests(self, paths: Iterable[str]) -> None:
        for path in paths:
            node = await self._store.find(path, watch=True)
            if node is None:
                self.tool_requests.pop(path, None)
            else:
                self.tool_requests[path] = node

    async def _read_controller(self) -> None:
        node = await self._store.find(znodes.CONTROLLER, watch=True)
        controller_id = NO_CONTROLLER
        if node is not None:
            decoded = self._decoded(znodes.CONTROLLER, node, znodes.decode_controller)
            controller_id = NO_CONTROLLER if decoded is None else decoded
        self.controller_id = controller_id
        self.controller_session = 0 if node is None else node.owner

    def _decoded(self, path: str, node: Node, decode: Callable[[bytes | None], T]) -> T | None:
        """What the node says, or None if that cannot be understood, which the log then says once."""
        try:
            decoded = decode(node.data)
        except ValueError as error:
            self._name(path, node.version, str(error))
            return None
        self._named.pop(path, None)
        return decoded

    def _name(self, path: str, version: int, why: str) -> None:
        what = f"The metadata store holds at {path} what cannot be understood: {why}."
        if self._is_first_read:
            raise StorageError(what)
        if self._named.get(path) != version:
            self._named[path] = version
            log.error("%s What was known before stays.", what)


def with_partitions(topic: TopicImage, changed: Sequence[PartitionImage]) -> TopicImage:
    """The topic with these partitions in place of those of the same numbers."""
    partitions = {partition.partition: partition for partition in topic.partitions}
    partitions.update((partition.partition, partition) for partition in changed)
    return replace(topic, partitions=tuple(partitions[index] for index in sorted(partitions)))
