"""The office of controller, as this broker holds it or not: the shell of the machine in kpy/controller.

The broker whose `/controller` node stands is the controller. It asks the machine what follows from what the store says,
writes that, and asks again. Each transaction begins with a check of /controller_epoch, which the next controller's
election raises: so a controller that has been replaced, and has not noticed, writes nothing more.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kpy import ids
from kpy.controller.machine import (
    AssignTopicId,
    ChangeAssignments,
    ChangeStates,
    Controller,
    CreateStates,
    DeleteTopic,
    ForgetDeletion,
    Observed,
)
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.log_repetition import Repetition
from kpy.metadata import membership, writes, znodes
from kpy.metadata.image import NO_CONTROLLER, NO_STATE, PartitionImage, TopicImage
from kpy.metadata.observer import EVERYTHING, Observer, with_partitions
from kpy.metadata.store import BadVersion, Create, Delete, MetadataStore, Op, SetData, StoreError
from kpy.metadata.tool_requests import ToolRequests

if TYPE_CHECKING:
    # Not at run time: a broker by itself tells nobody.
    from kpy.controller.broker_requests import BrokerRequests

log = logging.getLogger("kpy.metadata")


class Policy(NamedTuple):
    """The broker's configs that its controller obeys."""

    unclean_leader_election: bool = False
    topic_deletion: bool = True


class Candidature(NamedTuple):
    """Whether a broker stands for the office, and whom it tells what it decides."""

    stands: bool = True
    """False where another store than this one knows the controller."""
    listener: str | None = None
    """By which brokers reach each other; None where there is one, which reads in its store what it has to know."""


ALONE = Candidature()

CarriedOutAlone = AssignTopicId | CreateStates | ChangeAssignments | DeleteTopic | ForgetDeletion
"""Changes of one topic. New states of partitions, which many topics get at once, are written together."""


class Office:
    """`epoch` is the controller epoch while this broker is the controller. All is done under the cluster's lock."""

    def __init__(
        self,
        store: MetadataStore,
        observer: Observer,
        broker_id: int,
        rng: random.Random,
        now_ms: Callable[[], int],
        candidature: Candidature,
    ) -> None:
        self._store = store
        self._observer = observer
        self._broker_id = broker_id
        self._rng = rng
        self._now_ms = now_ms
        self._term: membership.Term | None = None
        self._candidature = candidature
        self._machine = Controller(rng)
        self._tools = ToolRequests(self, observer)
        self._has_started = False
        self._problem = Repetition(log, logging.ERROR)
        self._leaving: dict[int, int] = {}
        """Brokers that are about to stop, by id, with their epochs."""
        self.requests: BrokerRequests | None = None
        """What the other brokers have to be told, while this one is their controller."""
        self.policy = Policy()

    @property
    def is_held(self) -> bool:
        return self._term is not None

    @property
    def epoch(self) -> int:
        """The controller epoch. Raises ApiError NOT_CONTROLLER."""
        return self._held().controller_epoch

    def check_held(self) -> None:
        """Raises ApiError NOT_CONTROLLER."""
        self._held()

    async def keep(self) -> None:
        """Stands for election where nobody holds the office, and resigns where somebody else does."""
        self.resign_if_lost()
        if not self._candidature.stands or self._term is not None or self._observer.controller_id != NO_CONTROLLER:
            self._has_started = True
            return
        self._term = await self._stand()
        await self._observer.refresh([znodes.CONTROLLER])
        if self._term is None:
            return
        log.info("broker %d is the controller, with epoch %d", self._broker_id, self._term.controller_epoch)
        self._machine = Controller(self._rng)
        self._tools = ToolRequests(self, self._observer)
        self._leaving.clear()
        if self._candidature.listener is not None:
            from kpy.controller.broker_requests import BrokerRequests

            epoch = self._term.controller_epoch
            self.requests = BrokerRequests(self._broker_id, epoch, self._candidature.listener)
            # What happened before is not known in full: the watch that told of the end of the last controller may have
            # come before the one that tells of its broker's, and no watch tells of states (Kafka does this too).
            await self._observer.refresh([EVERYTHING])
        try:
            if await self._store.find(znodes.FEATURE) is None:
                await self.write([Create(znodes.FEATURE, znodes.encode_feature())])
        except StoreError as error:
            self._resign_if_fenced(error)

    async def _stand(self) -> membership.Term | None:
        """Raises StorageError for an epoch that is none the first time, as a broker that starts says what is wrong;
        later it is named in the log, and the broker goes on without the office.
        """
        try:
            term = await membership.stand_for_election(self._store, self._broker_id, self._now_ms())
        except StorageError as error:
            if not self._has_started:
                raise
            self._problem.say(f"cannot stand for controller: {error}")
            return None
        self._has_started = True
        self._problem.over()
        return term

    def resign_if_lost(self) -> None:
        """Resigns where /controller is not this broker's any more, or was in a session that has ended."""
        elected = self._observer.controller_id, self._observer.controller_session
        if elected != (self._broker_id, self._store.session_id):
            self._resign()

    def _resign(self) -> None:
        if self._term is not None:
            log.info("broker %d is not the controller any more", self._broker_id)
            self._term = None
            self.requests = None

    async def write(self, ops: Sequence[Op]) -> None:
        """Writes as the controller, in as many transactions as it takes. Raises StoreError, and ApiError NOT_CONTROLLER
        where this broker is not the controller, or, as it turns out, no more.
        """
        fence = self._held().fence
        try:
            for transaction in writes.in_transactions(ops, [fence]):
                await self._store.multi(transaction)
        except StoreError as error:
            if self._resign_if_fenced(error):
                raise ApiError(ErrorCode.NOT_CONTROLLER) from error
            raise

    async def change_states(self, changed: Mapping[str, Sequence[PartitionImage]]) -> frozenset[str]:
        """Puts states of many topics in place of those of the partition epoch before, as many in a transaction as fit.

        Returns the topics of which somebody has changed a state, and which are to be read again; the states of all
        others are written. Raises ApiError NOT_CONTROLLER.
        """
        fence = self._held().fence
        ops = [
            op for topic, partitions in changed.items() for op in writes.changed_states(topic, partitions, self.epoch)
        ]
        lost: set[str] = set()
        for transaction in writes.in_transactions(ops, [fence]):
            lost |= await self._write_but_lost(transaction, lost)
        for topic, partitions in changed.items():
            if topic not in lost:
                self._observer.put_topic(with_partitions(self._observer.topics[topic], partitions))
        return frozenset(lost)

    async def _write_but_lost(self, transaction: Sequence[Op], lost: Set[str]) -> Set[str]:
        """Writes states behind a fence, without those of lost topics. One more is lost with each that is refused."""
        fence, *states = transaction
        while states := [op for op in states if znodes.topic_of(op.path) not in lost]:
            try:
                await self._store.multi([fence, *states])
                break
            except StoreError as error:
                if self._resign_if_fenced(error):
                    raise ApiError(ErrorCode.NOT_CONTROLLER) from error
                topic = znodes.topic_of(error.path)
                assert topic is not None
                lost = {*lost, topic}
        return lost

    async def change_assignments(self, topic: str, partitions: Sequence[PartitionImage]) -> None:
        """Puts states and replicas in place of those before, in one transaction. Raises as `write`, and BadVersion
        where somebody has changed the assignment.
        """
        known = self._observer.topics[topic]
        path = znodes.topic_path(topic)
        node = await self._store.get(path)
        if node.data is None or znodes.understood(path, znodes.decode_topic, node.data) != writes.topic_node(known):
            raise BadVersion(path)
        changed = with_partitions(known, partitions)
        states = writes.changed_states(topic, partitions, self.epoch)
        await self.write([SetData(path, writes.encode_topic(changed), node.version), *states])
        self._observer.put_topic(changed)

    async def change_all_assignments(self, changed: Mapping[str, Sequence[PartitionImage]]) -> frozenset[str]:
        """The same of several topics. Returns those that somebody has changed, and which are to be read again."""
        lost: set[str] = set()
        for topic, partitions in changed.items():
            try:
                await self.change_assignments(topic, partitions)
            except StoreError:
                lost.add(topic)
        return frozenset(lost)

    async def carry_on(self) -> bool:
        """Carries out what the machine decides now: whether there was anything."""
        if self._term is None:
            return False
        try:
            return await self._carry_out_decisions() or await self._tools.take()
        except ApiError as error:
            if error.code != ErrorCode.NOT_CONTROLLER:
                raise
            return True

    async def _carry_out_decisions(self) -> bool:
        if self._observer.log_dir_events:
            await self._take_log_dir_events()
        unclean = [name for name, topic in self._observer.topics.items() if self._may_elect_unclean(topic)]
        observed = self._observed()
        changes = self._machine.decide(observed, unclean, deletion_enabled=self.policy.topic_deletion)
        if not changes:
            self._name_waiting()
        if not changes and self.requests is not None:
            # Only now: a broker that was away must not be told what it led before that is decided anew.
            self.requests.look(observed, deletion_enabled=self.policy.topic_deletion)
            return self.requests.deleted != observed.deleted
        elections = {change.topic: change.partitions for change in changes if isinstance(change, ChangeStates)}
        lost = set(await self.change_states(elections))
        for change in changes:
            if isinstance(change, ChangeStates) or change.topic in lost:
                continue
            try:
                await self._carry_out(change)
            except StoreError:
                lost.add(change.topic)
        if lost:
            # Somebody was faster. What there is now is read, and decided on anew.
            await self._observer.read_topics(lost)
            await self._observer.refresh([znodes.DELETE_TOPICS])
        return bool(changes)

    def _name_waiting(self) -> None:
        """Tells, once for each, of new partitions that wait for a broker: a tool may have named some that are none."""
        for name in self._observer.take_changed_topics():
            topic = self._observer.topics.get(name)
            if topic is None or self.is_deleted(name):
                continue
            for partition in topic.partitions:
                if partition.partition_epoch == NO_STATE:
                    replicas = list(partition.replicas)
                    log.warning(
                        "%s-%d has no leader yet: none of its replicas %s lives", name, partition.partition, replicas
                    )

    async def _take_log_dir_events(self) -> None:
        """Has brokers say again which of their replicas they still have. At the begin of a term they do so anyway."""
        paths, self._observer.log_dir_events = self._observer.log_dir_events, ()
        for path, node in zip(paths, await self._store.find_all(paths), strict=True):
            if node is None:
                continue
            try:
                broker_id = znodes.decode_log_dir_event(node.data)
            except ValueError as error:
                log.error("passing over %s, which cannot be understood: %s", path, error)
            else:
                log.warning("a data directory of broker %d has failed", broker_id)
                if self.requests is not None:
                    self.requests.repeat_roles(broker_id)
            await self.write([Delete(path)])

    def _observed(self) -> Observed:
        observed = self._observer.observed
        if self.requests is None:
            return observed
        self._leaving = {
            broker_id: epoch
            for broker_id, epoch in self._leaving.items()
            if broker_id in observed.brokers and observed.brokers[broker_id].epoch == epoch
        }
        return replace(
            observed,
            leaving=frozenset(self._leaving),
            offline=self.requests.offline,
            deleted=self.requests.deleted,
        )

    def relieve(self, broker_id: int) -> None:
        """The broker is about to stop: from the next decision on it leads nothing that another one can lead."""
        self._leaving[broker_id] = self._observer.brokers[broker_id].epoch

    @property
    def eligible(self) -> Set[int]:
        """The brokers that may lead and be in an ISR."""
        return self._observer.brokers.keys() - self._leaving.keys()

    def is_deleted(self, topic: str) -> bool:
        """Whether somebody has asked for the topic's deletion."""
        return topic in self._observer.deletions

    async def _carry_out(self, change: CarriedOutAlone) -> None:
        name = change.topic
        match change:
            case AssignTopicId(topic_id=topic_id):
                await self._assign_topic_id(name, topic_id)
            case CreateStates(partitions=partitions):
                existing = await writes.existing_partition_nodes(self._store, name, partitions)
                await self.write(writes.new_states(name, partitions, self.epoch, existing))
                self._observer.put_topic(with_partitions(self._observer.topics[name], partitions))
            case ChangeAssignments(partitions=partitions):
                await self.change_assignments(name, partitions)
            case DeleteTopic():
                await self.write(await writes.topic_deletion(self._store, name))
                self._observer.drop_topic(name)
                self._observer.deletions -= {name}
            case ForgetDeletion():
                await self.write([Delete(znodes.deletion_path(name))])
                self._observer.deletions -= {name}

    async def _assign_topic_id(self, name: str, topic_id: bytes) -> None:
        path = znodes.topic_path(name)
        node = await self._store.get(path)
        try:
            topic = znodes.decode_topic(node.data)
        except ValueError:
            raise BadVersion(path) from None
        if topic.topic_id != ids.ZERO_ID:
            raise BadVersion(path)
        await self.write([SetData(path, znodes.encode_topic(topic._replace(topic_id=topic_id)), node.version)])
        log.info("topic %s has been given the id %s", name, ids.to_text(topic_id))
        self._observer.put_topic(replace(self._observer.topics[name], topic_id=topic_id))

    def _may_elect_unclean(self, topic: TopicImage) -> bool:
        override = topic.configs.get("unclean.leader.election.enable")
        return self.policy.unclean_leader_election if override is None else override == "true"

    def _held(self) -> membership.Term:
        if self._term is None:
            raise ApiError(ErrorCode.NOT_CONTROLLER)
        return self._term

    def _resign_if_fenced(self, error: StoreError) -> bool:
        if error.path == znodes.CONTROLLER_EPOCH:
            self._resign()
            return True
        return False
