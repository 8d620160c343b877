"""What the controller has still to tell each broker, and the requests that tell it (Kafka classes
ControllerBrokerRequestBatch and ControllerChannelManager).

Theory of operation. `look` compares what the store says now with what it said at the last look, and notes for each live
broker the partitions that it has to hear of. `take` makes requests of these notes, from the newest states: what has
changed twice before a broker could be told is told once. A batch that did not arrive is put back by `failed`, so a
broker hears of everything as long as it lives, and what is kept for it is never more than one note a partition. One
`BrokerRequests` is one term of office: it begins with every broker as one that has just come.

In a batch LeaderAndIsr comes before UpdateMetadata, so that clients are not sent to a leader that does not know yet.
Where brokers have come or gone UpdateMetadata goes first: who is to follow a leader must believe that it lives.
StopReplica is the last.

A leader that changes its own ISR knows from the answer to AlterPartition; others only need it as metadata. A topic that
is to be deleted has the leader LEADER_DURING_DELETE, each broker deletes its replicas, and once all have, its nodes may
go: `deleted`.

Pure: answers come in as messages.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from kpy.controller.machine import Observed, may_be_deleted
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import NO_STATE, BrokerImage, PartitionImage, TopicImage
from kpy.wire.leader_and_isr import (
    LeaderAndIsrLiveLeader,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicState,
)
from kpy.wire.primitives import Message
from kpy.wire.stop_replica import (
    StopReplicaPartitionState,
    StopReplicaRequest,
    StopReplicaResponse,
    StopReplicaTopicState,
)
from kpy.wire.update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)

LEADER_AND_ISR: Final = (4, 7)
STOP_REPLICA: Final = (5, 4)
UPDATE_METADATA: Final = (6, 8)
"""API key and version, as at Apache Kafka's inter.broker.protocol.version 3.9."""

LEADER_DURING_DELETE: Final = -2
EPOCH_DURING_DELETE: Final = -2
SECURITY_PROTOCOLS: Final = {"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}

Key = tuple[str, int]
"""A topic's name and a partition."""


@dataclass(slots=True)
class Untold:
    """What one broker has not been told."""

    brokers: bool = False
    """Which brokers live, and who is the controller."""
    roles: dict[Key, bool] = field(default_factory=dict[Key, bool])
    """Partitions it has a replica of; whether they were created just now."""
    states: dict[Key, None] = field(default_factory=dict[Key, None])
    """Partitions whose leader or ISR is another one."""
    stops: dict[Key, int] = field(default_factory=dict[Key, int])
    """Replicas it is to delete, with the leader epoch in which it lost them."""

    def add(self, other: "Untold") -> None:
        """Takes back what was not told; what has been noted since is newer."""
        self.brokers |= other.brokers
        for key, is_new in other.roles.items():
            self.roles[key] = is_new or self.roles.get(key, False)
        self.states |= other.states
        for key, leader_epoch in other.stops.items():
            if key not in self.roles:
                self.stops.setdefault(key, leader_epoch)

    def __bool__(self) -> bool:
        return bool(self.brokers or self.roles or self.states or self.stops)


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests that tell one broker what it has not been told, in order: API key, version, message."""

    broker_id: int
    broker_epoch: int
    told: Untold
    requests: tuple[tuple[tuple[int, int], Message], ...]


class BrokerRequests:
    """One term of office. `offline` and `deleted` are what the brokers' answers have told."""

    def __init__(self, controller_id: int, controller_epoch: int, listener: str) -> None:
        """`listener` names where brokers reach each other."""
        self._controller_id = controller_id
        self._controller_epoch = controller_epoch
        self._listener = listener
        self._observed = Observed()
        self._has_looked = False
        self._untold: dict[int, Untold] = {}
        self._deleting: dict[str, set[tuple[int, int]]] = {}
        """Topics that are being deleted: partition and broker of each replica that is still there."""
        self.offline: dict[Key, frozenset[int]] = {}

    @property
    def brokers(self) -> dict[int, int]:
        """The epochs of the brokers that are to be told."""
        return {broker_id: broker.epoch for broker_id, broker in self._observed.brokers.items()}

    def address(self, broker_id: int) -> tuple[str, int] | None:
        """Where a broker is to be told; None for one that does not live, or has no such listener."""
        broker = self._observed.brokers.get(broker_id)
        return None if broker is None else broker.endpoints.get(self._listener)

    @property
    def deleted(self) -> frozenset[str]:
        """Topics that no broker has anything of any more."""
        return frozenset(name for name, replicas in self._deleting.items() if not replicas)

    # -- what is to be told ------------------------------------------------------------------------------------------

    def look(self, observed: Observed, *, deletion_enabled: bool) -> None:
        """Notes what is different from the last look."""
        before, is_first = self._observed, not self._has_looked
        self._has_looked = True
        self._observed = observed = replace(observed, topics=dict(observed.topics))
        if observed.brokers is not before.brokers and observed.brokers != before.brokers:
            self._look_at_brokers(before.brokers, observed.brokers)
        for name in observed.deletions if deletion_enabled else ():
            topic = observed.topics.get(name)
            if topic is not None and name not in self._deleting and may_be_deleted(topic, observed.brokers.keys()):
                self._begin_deletion(topic)
        for name, topic in observed.topics.items():
            known = before.topics.get(name)
            if topic is known or name in self._deleting:
                continue
            self._look_at_topic(topic, known, is_first=is_first)
        for name in [name for name in self._deleting if name not in observed.topics]:
            del self._deleting[name]

    def _look_at_brokers(self, before: Mapping[int, BrokerImage], now: Mapping[int, BrokerImage]) -> None:
        arrived = {
            broker_id
            for broker_id, broker in now.items()
            if broker_id not in before or before[broker_id].epoch != broker.epoch
        }
        self._untold = {broker_id: self._untold.get(broker_id, Untold()) for broker_id in now}
        for untold in self._untold.values():
            untold.brokers = True
        for broker_id in arrived:
            self._untold[broker_id] = self._everything(broker_id)
        self.offline = {key: left for key, offline in self.offline.items() if (left := offline - arrived)}
        # Whom the others believe to be away is part of what they know of each partition.
        changed = arrived | (before.keys() - now.keys())
        for key, partition in self._partitions():
            if not changed.isdisjoint(partition.replicas):
                self._note_state(key)

    def _everything(self, broker_id: int) -> Untold:
        untold = Untold(brokers=True)
        for key, partition in self._partitions():
            untold.states[key] = None
            if broker_id in partition.replicas:
                if key[0] in self._deleting:
                    untold.stops[key] = EPOCH_DURING_DELETE
                else:
                    untold.roles[key] = False
        return untold

    def _partitions(self) -> Iterable[tuple[Key, PartitionImage]]:
        """All that have a state."""
        for name, topic in self._observed.topics.items():
            for partition in topic.partitions:
                if partition.partition_epoch != NO_STATE:
                    yield (name, partition.partition), partition

    def _look_at_topic(self, topic: TopicImage, before: TopicImage | None, *, is_first: bool) -> None:
        is_same = before is not None and before.topic_id == topic.topic_id
        known = {each.partition: each for each in before.partitions} if before is not None and is_same else {}
        for partition in topic.partitions:
            was = known.get(partition.partition)
            if partition is was or partition.partition_epoch == NO_STATE:
                continue
            key = topic.name, partition.partition
            is_new = not is_first and (was is None or was.partition_epoch == NO_STATE)
            self._note_state(key)
            if was is None or _has_other_roles(partition, was):
                for broker_id in partition.replicas:
                    is_added = was is not None and broker_id not in was.replicas
                    self._note_role(broker_id, key, is_new=is_new or is_added)
            for broker_id in was.replicas if was is not None else ():
                if broker_id not in partition.replicas:
                    self._note_stop(broker_id, key, partition.leader_epoch)

    def repeat_roles(self, broker_id: int) -> None:
        """Notes all partitions of a broker, which answers which of them it has on a disk that works."""
        for key, partition in self._partitions():
            if broker_id in partition.replicas:
                self._note_role(broker_id, key, is_new=False)

    def _note_state(self, key: Key) -> None:
        for untold in self._untold.values():
            untold.states[key] = None

    def _note_role(self, broker_id: int, key: Key, *, is_new: bool) -> None:
        untold = self._untold.get(broker_id)
        if untold is not None:
            untold.roles[key] = untold.roles.get(key, False) or is_new
            untold.stops.pop(key, None)

    def _note_stop(self, broker_id: int, key: Key, leader_epoch: int) -> None:
        untold = self._untold.get(broker_id)
        if untold is not None:
            untold.roles.pop(key, None)
            untold.stops[key] = leader_epoch

    def _begin_deletion(self, topic: TopicImage) -> None:
        left: set[tuple[int, int]] = set()
        for partition in topic.partitions:
            key = topic.name, partition.partition
            if partition.partition_epoch == NO_STATE:
                continue
            self._note_state(key)
            for broker_id in partition.replicas:
                left.add((partition.partition, broker_id))
                self._note_stop(broker_id, key, EPOCH_DURING_DELETE)
        self._deleting[topic.name] = left

    # -- how it is told ----------------------------------------------------------------------------------------------

    def has_news(self, broker_id: int) -> bool:
        """Whether there is something that a broker has to hear."""
        return bool(self._untold.get(broker_id))

    def take(self, broker_id: int) -> Batch | None:
        """What a broker has to hear, if it lives and there is anything. It counts as told unless it `failed`."""
        untold = self._untold.get(broker_id)
        if not untold:
            return None
        self._untold[broker_id] = Untold()
        epoch = self._observed.brokers[broker_id].epoch
        requests: list[tuple[tuple[int, int], Message]] = []
        if untold.roles:
            requests.append((LEADER_AND_ISR, self._leader_and_isr(broker_id, untold, epoch)))
        if untold.brokers or untold.states:
            requests.insert(0 if untold.brokers else 1, (UPDATE_METADATA, self._update_metadata(untold, epoch)))
        if untold.stops:
            requests.append((STOP_REPLICA, self._stop_replica(untold, epoch)))
        return Batch(broker_id, epoch, untold, tuple(requests))

    def failed(self, batch: Batch) -> None:
        """The broker has not been told, or it is not known that it has."""
        untold = self._untold.get(batch.broker_id)
        if untold is not None and self.brokers.get(batch.broker_id) == batch.broker_epoch:
            untold.add(batch.told)

    def answered(self, batch: Batch, response: Message) -> bool:
        """Takes one of a batch's answers: whether the controller has to decide anew."""
        if self.brokers.get(batch.broker_id) != batch.broker_epoch:
            return False
        if isinstance(response, LeaderAndIsrResponse):
            return self._roles_answered(batch.broker_id, response)
        if isinstance(response, StopReplicaResponse):
            return self._stops_answered(batch.broker_id, response)
        return False

    def _roles_answered(self, broker_id: int, response: LeaderAndIsrResponse) -> bool:
        """A replica on a failed disk is answered KAFKA_STORAGE_ERROR; other errors mean that it knew already."""
        before = dict(self.offline)
        names = {topic.topic_id: name for name, topic in self._observed.topics.items()}
        for topic in response.topics:
            name = names.get(topic.topic_id)
            if name is None:
                continue
            for answer in topic.partition_errors:
                key = name, answer.partition_index
                offline = self.offline.get(key, frozenset())
                if answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR:
                    self.offline[key] = offline | {broker_id}
                elif answer.error_code == ErrorCode.NONE and broker_id in offline:
                    self.offline[key] = offline - {broker_id}
        for key in self.offline.keys() | before.keys():
            if self.offline.get(key) != before.get(key):
                self._note_state(key)
        return self.offline != before

    def _stops_answered(self, broker_id: int, response: StopReplicaResponse) -> bool:
        is_progress = False
        for answer in response.partition_errors:
            left = self._deleting.get(answer.topic_name)
            if left is not None and answer.error_code == ErrorCode.NONE:
                left.discard((answer.partition_index, broker_id))
                is_progress |= not left
        return is_progress

    # -- the requests ------------------------------------------------------------------------------------------------

    def _partition(self, key: Key) -> PartitionImage | None:
        """None for one that is gone."""
        topic = self._observed.topics.get(key[0])
        if topic is None or key[1] >= len(topic.partitions):
            return None
        partition = topic.partitions[key[1]]
        return None if partition.partition_epoch == NO_STATE else partition

    def _leader_and_isr(self, broker_id: int, untold: Untold, broker_epoch: int) -> LeaderAndIsrRequest:
        topics: dict[str, LeaderAndIsrTopicState] = {}
        leaders: set[int] = set()
        for key, is_new in untold.roles.items():
            partition = self._partition(key)
            if partition is None or broker_id not in partition.replicas or key[0] in self._deleting:
                continue
            topic = topics.setdefault(key[0], LeaderAndIsrTopicState(key[0], self._observed.topics[key[0]].topic_id))
            leaders.add(partition.leader)
            topic.partition_states.append(
                LeaderAndIsrPartitionState(
                    partition_index=partition.partition,
                    controller_epoch=self._controller_epoch,
                    leader=partition.leader,
                    leader_epoch=partition.leader_epoch,
                    isr=list(partition.isr),
                    partition_epoch=partition.partition_epoch,
                    replicas=list(partition.replicas),
                    adding_replicas=list(partition.adding),
                    removing_replicas=list(partition.removing),
                    is_new=is_new,
                    leader_recovery_state=int(partition.recovering),
                )
            )
        return LeaderAndIsrRequest(
            controller_id=self._controller_id,
            controller_epoch=self._controller_epoch,
            broker_epoch=broker_epoch,
            topic_states=list(topics.values()),
            live_leaders=[
                LeaderAndIsrLiveLeader(broker.broker_id, *broker.endpoints[self._listener])
                for broker in self._observed.brokers.values()
                if broker.broker_id in leaders and self._listener in broker.endpoints
            ],
        )

    def _update_metadata(self, untold: Untold, broker_epoch: int) -> UpdateMetadataRequest:
        topics: dict[str, UpdateMetadataTopicState] = {}
        for name, index in untold.states:
            known = self._observed.topics.get(name)
            topic = topics.setdefault(
                name, UpdateMetadataTopicState(name, ZERO_ID if known is None else known.topic_id)
            )
            topic.partition_states.append(self._state(name, index))
        return UpdateMetadataRequest(
            controller_id=self._controller_id,
            controller_epoch=self._controller_epoch,
            broker_epoch=broker_epoch,
            topic_states=list(topics.values()),
            live_brokers=[_live_broker(broker) for broker in self._observed.brokers.values()],
        )

    def _state(self, name: str, index: int) -> UpdateMetadataPartitionState:
        partition = self._partition((name, index))
        if partition is None:
            partition = PartitionImage(index, LEADER_DURING_DELETE, EPOCH_DURING_DELETE, (), ())
        elif name in self._deleting:
            partition = replace(partition, leader=LEADER_DURING_DELETE)
        offline = self.offline.get((name, index), frozenset())
        return UpdateMetadataPartitionState(
            partition_index=index,
            controller_epoch=self._controller_epoch,
            leader=partition.leader,
            leader_epoch=partition.leader_epoch,
            isr=list(partition.isr),
            zk_version=partition.partition_epoch,
            replicas=list(partition.replicas),
            offline_replicas=[
                each for each in partition.replicas if each not in self._observed.brokers or each in offline
            ],
        )

    def _stop_replica(self, untold: Untold, broker_epoch: int) -> StopReplicaRequest:
        topics: dict[str, StopReplicaTopicState] = {}
        for (name, index), leader_epoch in untold.stops.items():
            topic = topics.setdefault(name, StopReplicaTopicState(name))
            topic.partition_states.append(StopReplicaPartitionState(index, leader_epoch, delete_partition=True))
        return StopReplicaRequest(
            controller_id=self._controller_id,
            controller_epoch=self._controller_epoch,
            broker_epoch=broker_epoch,
            topic_states=list(topics.values()),
        )


def _has_other_roles(partition: PartitionImage, before: PartitionImage) -> bool:
    """Whether its replicas have to hear of it. Of a changed ISR alone its leader knows, who has asked for it."""
    return (
        partition.leader_epoch != before.leader_epoch
        or partition.replicas != before.replicas
        or partition.adding != before.adding
        or partition.removing != before.removing
    )


def _live_broker(broker: BrokerImage) -> UpdateMetadataBroker:
    return UpdateMetadataBroker(
        id=broker.broker_id,
        endpoints=[
            UpdateMetadataEndpoint(
                port, host, name, SECURITY_PROTOCOLS.get(broker.security_protocols.get(name, "PLAINTEXT"), 0)
            )
            for name, (host, port) in broker.endpoints.items()
        ],
        rack=broker.rack,
    )
