"""The controller: what one elected broker decides for the whole cluster (Kafka class KafkaController).

Theory of operation. The controller looks at what the metadata store says (`Observed`) and answers with the changes that
are to be written next, in Kafka's order of a failover: ids for topics that have none, states for new partitions,
leaders for those that have lost theirs, the end of reassignments, deletions. Whoever drives it writes them, looks again
and asks again, until there is nothing left to do. So a change that was lost, or that somebody else made in between,
needs no care of its own, and a controller that takes over in the middle of a deletion or of a creation carries on from
what it finds.

What the store does not say is which arrivals and departures have been dealt with: a broker that comes back before
anybody noticed that it was gone is the same node with a higher epoch. The controller remembers the epochs, and lets
such a broker go before it lets it come (Kafka: "bounced" brokers). One `Controller` is one term of office: another
begins with none.

Pure: no clock and no store; new topic ids come from the generator that is passed in.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field

from kpy import ids
from kpy.controller.elections import after_failure, before_shutdown, first_leader
from kpy.controller.reassignments import completed, is_reassigned
from kpy.metadata.image import BrokerImage, PartitionImage, TopicImage


@dataclass(frozen=True, slots=True)
class Observed:
    """The cluster as the store has it: unlike the image, with topics that are not complete or about to be deleted."""

    brokers: Mapping[int, BrokerImage] = field(default_factory=dict[int, BrokerImage])
    topics: Mapping[str, TopicImage] = field(default_factory=dict[str, TopicImage])
    """A partition that lacks its state has the partition epoch NO_STATE."""
    without_id: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Topics whose node lacks the id: the id they are known to have had, or ids.ZERO_ID if none is known."""
    deletions: frozenset[str] = frozenset()
    """Topics that somebody has asked to be deleted."""
    leaving: frozenset[int] = frozenset()
    """Brokers that are about to stop and have asked to be relieved (ControlledShutdown)."""
    offline: Mapping[tuple[str, int], frozenset[int]] = field(default_factory=dict[tuple[str, int], frozenset[int]])
    """Live brokers that have a replica of a partition on a disk that has failed."""
    deleted: frozenset[str] | None = None
    """Topics whose replicas have all been deleted by their brokers; None where no broker has to be told first."""


@dataclass(frozen=True, slots=True)
class AssignTopicId:
    """Write a topic's node anew, with an id: old tools create topics without one, and still older ones drop it."""

    topic: str
    topic_id: bytes


@dataclass(frozen=True, slots=True)
class CreateStates:
    """Give new partitions of a topic their first state."""

    topic: str
    partitions: tuple[PartitionImage, ...]


@dataclass(frozen=True, slots=True)
class ChangeStates:
    """Put these states in place of those of the partition epoch before."""

    topic: str
    partitions: tuple[PartitionImage, ...]


@dataclass(frozen=True, slots=True)
class ChangeAssignments:
    """The same, with other replicas."""

    topic: str
    partitions: tuple[PartitionImage, ...]


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """Delete a topic's nodes, its configs and the request for it."""

    topic: str


@dataclass(frozen=True, slots=True)
class ForgetDeletion:
    """Delete a request for a deletion that will not be: there is no such topic, or delete.topic.enable is false."""

    topic: str


Change = AssignTopicId | CreateStates | ChangeStates | ChangeAssignments | DeleteTopic | ForgetDeletion


class Controller:
    """One term of office. `decide` is asked again after each round of changes, until it has none."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._known: dict[int, int] = {}
        """Broker epochs by id: the arrivals that have been dealt with."""

    def decide(self, observed: Observed, unclean_allowed: Collection[str], *, deletion_enabled: bool) -> list[Change]:
        """What is to be written next. `unclean_allowed`: the topics in which a replica that is out of sync may lead."""
        brokers = {broker_id: broker.epoch for broker_id, broker in observed.brokers.items()}
        bounced = {broker_id for broker_id, epoch in self._known.items() if brokers.get(broker_id, epoch) != epoch}
        self._known = {broker_id: epoch for broker_id, epoch in brokers.items() if broker_id not in bounced}
        changes = list(_assigned_ids(observed, self._rng))
        for name, topic in observed.topics.items():
            if name not in observed.deletions or not deletion_enabled:
                changes += _elections(topic, self._known, observed, unclean=name in unclean_allowed)
        if not changes and bounced:
            return self.decide(observed, unclean_allowed, deletion_enabled=deletion_enabled)
        changes += _deletions(observed, deletion_enabled=deletion_enabled)
        return changes


def _assigned_ids(observed: Observed, rng: random.Random) -> Iterator[Change]:
    for name, known in observed.without_id.items():
        yield AssignTopicId(name, ids.new_id(rng) if known == ids.ZERO_ID else known)


def _elections(topic: TopicImage, live: Collection[int], observed: Observed, *, unclean: bool) -> Iterator[Change]:
    created: list[PartitionImage] = []
    changed: list[PartitionImage] = []
    reassigned: list[PartitionImage] = []
    for partition in topic.partitions:
        offline = observed.offline.get((topic.name, partition.partition))
        usable = live if offline is None else set(live) - offline
        new = first_leader(partition, usable)
        if new is not None:
            created.append(new)
            continue
        next_state = after_failure(partition, usable, unclean=unclean)
        if next_state is None and observed.leaving:
            next_state = before_shutdown(partition, usable, observed.leaving)
        if next_state is not None:
            changed.append(next_state)
        elif (done := completed(partition, usable)) is not None:
            reassigned.append(done)
    if created:
        yield CreateStates(topic.name, tuple(created))
    if changed:
        yield ChangeStates(topic.name, tuple(changed))
    if reassigned:
        yield ChangeAssignments(topic.name, tuple(reassigned))


def may_be_deleted(topic: TopicImage, brokers: Set[int]) -> bool:
    """Only while all of its replicas' brokers live, so that none keeps what it cannot be told to drop, and not in the
    middle of a reassignment.
    """
    return all(brokers >= set(partition.replicas) and not is_reassigned(partition) for partition in topic.partitions)


def _deletions(observed: Observed, *, deletion_enabled: bool) -> Iterator[Change]:
    for name in sorted(observed.deletions):
        topic = observed.topics.get(name)
        if topic is None or not deletion_enabled:
            yield ForgetDeletion(name)
        elif (
            name in observed.deleted if observed.deleted is not None else may_be_deleted(topic, observed.brokers.keys())
        ):
            yield DeleteTopic(name)
