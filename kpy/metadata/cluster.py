"""The cluster's metadata as this broker knows and changes it: `Cluster.image`, kept in a MetadataStore.

Theory of operation. The store holds Apache Kafka's znodes, and an Observer reads them; the image is what they say. Each
operation decides on the image (kpy/controller), writes its nodes, then puts a new image in place of the old and tells
`on_change`, all before it returns. So an answer to a client follows a durable change that the replica layer has
applied, and a reader that holds an image holds a consistent view. Operations wait for each other, so that image and
store never part; once begun they are finished even if the client goes away.

The store may be shared. What others change comes in through watches: `run` reads it and publishes it. If somebody was
faster (NodeExists, BadVersion) an operation reads again and decides again, so plans are handed in as functions of the
image. Nothing here knows which kind of store it is.

The broker whose `/controller` node stands is the controller: after each change, its own or another's, it asks the
machine of kpy/controller what follows, and writes that, until nothing does. Each of its writes is fenced by
/controller_epoch. Other brokers create topics (automatic and internal ones) without states, which the controller adds.

Where the replica layer is one crash behind (logs of a topic whose deletion was committed, logs not yet made), the first
image after the start tells it, by topic ids: a topic that is created again has another id.

Leader epochs. A clean restart changes none, like Apache Kafka's with a single ZooKeeper-mode broker. After an unclean
one the log may have lost acknowledged records (a power cut; there is no other replica), and offsets may be given out
again: then `start_leader_epochs` (leader_elections.py) raises every epoch that nobody else raises, so that consumers
notice by OffsetForLeaderEpoch (KIP-320).
"""

import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar

import trio

from kpy import ids
from kpy.controller import topics as controller
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.metadata import membership, writes, znodes
from kpy.metadata.image import NO_CONTROLLER, MetadataImage, TopicImage
from kpy.metadata.observer import EVERYTHING, ConfigProblem, Observer
from kpy.metadata.office import ALONE, Candidature, Office
from kpy.metadata.producer_ids import ProducerIds
from kpy.metadata.store import (
    BadVersion,
    Create,
    MetadataStore,
    NodeExists,
    NoNode,
    Op,
    SetData,
    StoreError,
    StoreUnavailable,
)
from kpy.metadata.updates import updated, with_configs

if TYPE_CHECKING:
    # Not at run time: a single broker hears nothing from a controller.
    from kpy.wire.update_metadata import UpdateMetadataRequest

log = logging.getLogger("kpy.metadata")


MAX_ATTEMPTS = 20
"""How often an operation decides anew because somebody else was faster, and a controller goes on without an end."""

CONFLICT_RETRY_MS = 200
UNAVAILABLE_RETRY_MS = 1_000

T = TypeVar("T")
P = TypeVar("P", TopicImage, str)

ConfigEntity = Literal["topics", "brokers"]
"""What has dynamic configs: the directories below /config."""

TopicPlan = Callable[[MetadataImage], Sequence[TopicImage]]
"""The topics that an operation is to write, decided on an image. It may be called again, on a newer one."""


def _ignore(*_: object) -> None:
    """Stands in a callback until somebody listens."""


class Cluster:
    """The image, and every change to it. Made by `open`.

    Set `on_change` before the first change: it is called with each new image, synchronously. Operations raise ApiError:
    NOT_CONTROLLER where another broker has to do it, REQUEST_TIMED_OUT while the store is out of reach.
    """

    def __init__(
        self,
        store: MetadataStore,
        broker_id: int,
        rng: random.Random,
        now_ms: Callable[[], int],
        candidature: Candidature,
        topic_config_problem: ConfigProblem,
    ) -> None:
        self._store = store
        self._broker_id = broker_id
        self._rng = rng
        self._now_ms = now_ms
        self._observer = Observer(store, topic_config_problem, watches_states=candidature.listener is None)
        self._lock = trio.Lock()
        self.producer_ids = ProducerIds(store, broker_id)
        self._registration: znodes.BrokerRegistration | None = None
        self._told: MetadataImage | None = None
        """What a controller has said, with the configs of the store; None where none says anything."""
        self._sessions: set[int] = set()
        self._session_lost = False
        self._changed: set[str] = set()
        self._wake = trio.Event()
        self.office = Office(store, self._observer, broker_id, rng, now_ms, candidature)
        self.on_change: Callable[[MetadataImage], None] = _ignore
        self.on_registered: Callable[[int], None] = _ignore
        """Told the broker epoch of each registration."""
        self.on_settled: Callable[[], None] = _ignore
        """Told when this broker, as the controller, may have more to say to others."""
        self.stored = self._observer.image()
        """The cluster as the store has it, on which is decided what to change."""
        self.image = self.stored
        """The cluster as this broker serves it."""
        self._published = trio.Event()

    @classmethod
    async def open(
        cls,
        store: MetadataStore,
        *,
        broker_id: int,
        rng: random.Random,
        now_ms: Callable[[], int],
        cluster_id: str | None = None,
        candidature: Candidature = ALONE,
        topic_config_problem: ConfigProblem = _ignore,
    ) -> "Cluster":
        """The cluster in the store. `cluster_id` is used only if the store has none yet; `topic_config_problem` says
        why a topic's configs, as somebody has written them, cannot be used.

        Raises StorageError if the store holds what is not Kafka's, StoreUnavailable.
        """
        cluster = cls(store, broker_id, rng, now_ms, candidature, topic_config_problem)
        await membership.make_layout(store, cluster_id or ids.to_text(ids.new_id(rng)))
        store.on_change = cluster._node_changed
        store.on_session = cluster._session_changed
        await cluster._observer.read_all()
        cluster.stored = cluster.image = cluster._observer.image()
        return cluster

    @property
    def is_controller(self) -> bool:
        return self.office.is_held

    # -- this broker -------------------------------------------------------------------------------------------------

    async def register(
        self,
        endpoints: Mapping[str, tuple[str, int]],
        security_protocols: Mapping[str, str],
        rack: str | None = None,
        *,
        patience_ms: int = 0,
    ) -> None:
        """Puts this broker among the live ones, reachable at `endpoints` (advertised host and port by listener name),
        and stands for the office of controller.

        If its id or an address of it is taken, that may be a session of this broker's last life, which nobody has
        missed yet: for `patience_ms` it waits for that to end. Raises StorageError when it has not.
        """
        registration = znodes.BrokerRegistration(dict(endpoints), dict(security_protocols), rack)
        waited_ms = 0
        while True:
            try:
                async with self.changing():
                    await self._register(registration)
                return
            except membership.Conflict as conflict:
                if waited_ms == 0 and patience_ms > 0:
                    log.warning("%s; waiting up to %d ms for that session to end", conflict.message, patience_ms)
                if waited_ms >= patience_ms:
                    raise StorageError(f"Cannot join the cluster: {conflict.message}.") from None
            await trio.sleep(CONFLICT_RETRY_MS / 1000)
            waited_ms += CONFLICT_RETRY_MS

    async def tell_of_log_dir_failure(self) -> None:
        """Has the controller find other leaders for what was in a data directory that has failed."""
        note = znodes.encode_log_dir_event(self._broker_id)
        while True:
            try:
                await self._store.create(f"{znodes.LOG_DIR_EVENTS}/log_dir_event_", note, sequential=True)
                return
            except StoreUnavailable:
                await trio.sleep(UNAVAILABLE_RETRY_MS / 1000)

    async def run(self) -> None:
        """Follows what others change in the store, and keeps this broker registered, until cancelled."""
        said = ""
        while True:
            await self._wake.wait()
            try:
                # The broker does not wait for a store that is away when it is to stop.
                async with self.changing(shield=False):
                    said = ""
            except (StoreUnavailable, membership.Conflict) as error:
                if str(error) != said:
                    said = str(error)
                    log.error("cannot follow the cluster's metadata, and tries on: %s", said)
                await trio.sleep(UNAVAILABLE_RETRY_MS / 1000)

    # -- topics ------------------------------------------------------------------------------------------------------

    async def create_topics(self, plan: TopicPlan) -> None:
        """Creates the topics of a plan (kpy/controller/topics.py), in one transaction if they fit.

        A broker that is not the controller leaves their states to it, so they are not in the image yet.
        """

        async def create(topics: Sequence[TopicImage]) -> None:
            config_paths = [znodes.topic_config_path(topic.name) for topic in topics]
            configs = await self._store.find_all(config_paths)
            ops: list[Op] = []
            for topic, config in zip(topics, configs, strict=True):
                nodes = writes.new_topic(topic, config_exists=config is not None)
                if self.is_controller:
                    ops += nodes
                    ops += writes.new_states(topic.name, topic.partitions, self.office.epoch)
                    continue
                try:
                    await self._store.multi(nodes)
                except NodeExists:
                    continue  # Another broker was asked for the same topic, and the controller has not seen it yet.
            if self.is_controller:
                await self.office.write(ops)
                for topic in topics:
                    self._observer.put_topic(topic)

        await self._plan_and_write(plan, create, _name_of)

    async def create_internal_topic(
        self, name: str, num_partitions: int, replication_factor: int, configs: Mapping[str, str]
    ) -> TopicImage:
        """A topic that a coordinator keeps its state in, created unless it exists.

        Raises ApiError as `plan_topic`, and COORDINATOR_NOT_AVAILABLE while another broker, the controller, is at it.
        """
        from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig

        request = CreatableTopic(
            name=name,
            num_partitions=num_partitions,
            replication_factor=replication_factor,
            configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
        )
        defaults = controller.TopicDefaults(num_partitions, replication_factor)

        def plan(image: MetadataImage) -> Sequence[TopicImage]:
            if name in image.topics:
                return ()
            return [controller.plan_topic(request, image, (), defaults, self._rng)]

        if name not in self.image.topics:
            await self.create_topics(plan)
        topic = self.image.topics.get(name)
        if topic is None:
            raise ApiError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"{name} is being created.")
        return topic

    async def create_partitions(self, plan: TopicPlan) -> None:
        """Puts planned topics, which have more partitions, in place of what they were. Only the controller can."""

        async def create(topics: Sequence[TopicImage]) -> None:
            epoch = self.office.epoch
            ops: list[Op] = []
            for topic in topics:
                path = znodes.topic_path(topic.name)
                node = await self._store.get(path)
                count = len(self.stored.topics[topic.name].partitions)
                if len(znodes.understood(path, znodes.decode_topic, node.data).replicas) != count:
                    raise BadVersion(path)
                added = topic.partitions[count:]
                existing = await writes.existing_partition_nodes(self._store, topic.name, added)
                ops.append(SetData(path, writes.encode_topic(topic), node.version))
                ops += writes.new_states(topic.name, added, epoch, existing)
            await self.office.write(ops)
            for topic in topics:
                self._observer.put_topic(topic)

        await self._plan_and_write(plan, create, _name_of)

    async def delete_topics(self, plan: Callable[[MetadataImage], Sequence[str]]) -> None:
        """Deletes topics with their configs; the replica layer drops their logs in `on_change`. Only the controller
        can.

        A topic with replicas on brokers that are away stays until they are back.
        """

        async def request(names: Sequence[str]) -> None:
            asked = [name for name in names if name not in self._observer.deletions]
            await self.office.write([Create(znodes.deletion_path(name)) for name in asked])
            self._observer.deletions |= frozenset(names)

        await self._plan_and_write(plan, request, str)

    async def _plan_and_write(
        self,
        plan: Callable[[MetadataImage], Sequence[P]],
        write: Callable[[Sequence[P]], Awaitable[None]],
        name_of: Callable[[P], str],
    ) -> None:
        async with self.changing():
            for _ in range(MAX_ATTEMPTS):
                planned = plan(self.stored)
                if not planned:
                    return
                try:
                    await write(planned)
                    return
                except StoreError:
                    await self._observer.read_topics([name_of(each) for each in planned])
                    await self._observer.refresh([znodes.DELETE_TOPICS])
                    await self._settle()
            raise ApiError(ErrorCode.REQUEST_TIMED_OUT, "The metadata was changed by others again and again.")

    # -- configs -----------------------------------------------------------------------------------------------------

    async def alter_configs(
        self, entity: ConfigEntity, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> None:
        """Puts what `change` makes of the overrides that `name` has, and has validated, in their place.

        `name` is a topic, a broker id as text, or "" for all brokers.
        """
        is_topic = entity == "topics"
        path = znodes.topic_config_path(name) if is_topic else znodes.broker_config_path(name)
        async with self.changing():
            for _ in range(MAX_ATTEMPTS):
                node = await self._store.find(path)
                current = {} if node is None else znodes.understood(path, znodes.decode_config, node.data)
                overrides = dict(change(current))
                data = znodes.encode_config(overrides)
                try:
                    if node is None:
                        await self._store.create(path, data)
                    else:
                        await self._store.set(path, data, node.version)
                    break
                except (BadVersion, NodeExists, NoNode):
                    continue
            else:
                raise ApiError(ErrorCode.REQUEST_TIMED_OUT, "The configs were changed by others again and again.")
            await writes.tell_of_config(self._store, f"{entity}/{name or znodes.DEFAULT_ENTITY}", self._now_ms())
            if is_topic and name in self._observer.topics:
                self._observer.topics[name] = replace(self._observer.topics[name], configs=overrides)
            elif not is_topic:
                self._observer.broker_configs[name] = overrides

    # -- what a controller tells -------------------------------------------------------------------------------------

    def begin_to_listen(self) -> None:
        """From now on a controller tells who lives and who leads, as `learn` takes it; the store only has configs."""
        self._told = replace(self.stored, controller_id=NO_CONTROLLER, brokers={}, topics={}, topic_names={})
        self._publish()

    def learn(self, request: "UpdateMetadataRequest") -> None:
        """Takes what the controller says."""
        assert self._told is not None
        self._told = updated(self._told, request)
        self._publish()

    def topic_configs(self, topic: str) -> Mapping[str, str]:
        """The topic's own overrides, also if no controller has told of the topic yet."""
        known = self._observer.topics.get(topic)
        return {} if known is None else known.configs

    async def wait_until(self, condition: Callable[[MetadataImage], bool], timeout_ms: int) -> bool:
        """Waits until both images fulfil the condition: whether they have done so in time."""
        with trio.move_on_after(max(0, timeout_ms) / 1000):
            while not (condition(self.image) and condition(self.stored)):
                await self._published.wait()
        return condition(self.image) and condition(self.stored)

    async def close(self) -> None:
        await self._store.close()

    # -- how a change is made ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def changing(self, *, shield: bool = True) -> AsyncGenerator[None]:
        """One operation at a time, on an image that is up to date, and to the end even if its client has left. What
        follows from it, the controller's part and the new image, is done before the next one begins.
        """
        async with self._lock:
            with trio.CancelScope(shield=shield):
                try:
                    await self._catch_up()
                    try:
                        yield
                    finally:
                        await self._settle()
                except StoreUnavailable:
                    # What was asked for may have been done, or half of it.
                    self._node_changed(EVERYTHING)
                    raise

    async def _catch_up(self) -> None:
        """Reads what others have changed, and registers anew in a new session."""
        if self._wake.is_set():  # Otherwise `run` waits for this one.
            self._wake = trio.Event()
        unread, self._changed = self._changed, set()
        try:
            if self._session_lost:
                # What was under way when the session ended may have been done in the new one: an election too.
                await self._observer.refresh([znodes.CONTROLLER])
                self.office.resign_if_lost()
                if self._registration is not None:
                    await self._register(self._registration)
                self._session_lost = False
            if unread:
                await self._observer.refresh(unread)
                await self._settle()
            unread.clear()
        finally:
            for path in unread:
                self._node_changed(path)

    async def _settle(self) -> None:
        """Elects, publishes, and lets the controller do what follows, until nothing does."""
        for _ in range(MAX_ATTEMPTS):
            if self._registration is not None:
                await self.office.keep()
            self._publish()
            if not await self.office.carry_on():
                break
        else:
            log.error("the controller has more to do after %d rounds; it goes on at the next event", MAX_ATTEMPTS)
        self.on_settled()

    async def _register(self, registration: znodes.BrokerRegistration) -> None:
        sessions = frozenset(self._sessions)
        # Before it is tried: the session may end while its registration is under way.
        self._sessions.add(self._store.session_id)
        await membership.register(self._store, self._broker_id, registration, self._now_ms(), sessions)
        self._registration = registration
        await self._observer.refresh([znodes.BROKER_IDS])
        own = self._observer.brokers.get(self._broker_id)
        if own is not None:
            self.on_registered(own.epoch)

    # -- what the store tells ----------------------------------------------------------------------------------------

    def _node_changed(self, path: str) -> None:
        self._changed.add(path)
        self._wake.set()

    def decide_anew(self) -> None:
        """Something that the controller goes by is different, without a change in the store."""
        self._wake.set()

    async def read_again(self, topics: Iterable[str]) -> None:
        """Reads topics that have turned out to be different from what is known here."""
        await self._observer.read_topics(topics)
        self._publish()

    def _session_changed(self) -> None:
        self._session_lost = True
        self._node_changed(EVERYTHING)

    def _publish(self) -> None:
        stored = self._observer.image(self.stored)
        image = stored if self._told is None else with_configs(self._told, stored)
        self._told = None if self._told is None else image
        is_known = stored is self.stored and image is self.image
        self.stored = stored
        if image is not self.image:
            self.image = image
            self.on_change(image)
        if not is_known:
            self._published.set()
            self._published = trio.Event()


def _name_of(topic: TopicImage) -> str:
    return topic.name
