"""The language of the controller transcripts: runs one against a Controller and writes down what it decides.

Each line is a command, and after `->` what the controller has decided next, until it had nothing left to do. What it
decides is taken as written, and seen by it, before it is asked again. Empty lines and comments stay.

    brokers 1 2@30            who is registered; @ gives the broker epoch, 1 without
    topic t [1,2] [2,1]       a tool writes a topic without id and states: the replicas of each partition
    grow t [1]                a tool adds a partition
    lose-id t                 an old tool writes a topic's node anew, without its id
    reassign t-0 [1,3] adding=[3] removing=[2]
    delete t                  somebody asks for a deletion
    unclean t                 the topic allows unclean elections
    deletion off              delete.topic.enable=false
    take-over                 another broker is elected and begins without a memory
    show                      all states, as leader/epoch isr
"""

import random
import re
from dataclasses import replace

from kpy import ids
from kpy.controller.machine import (
    AssignTopicId,
    Change,
    ChangeStates,
    Controller,
    CreateStates,
    DeleteTopic,
    ForgetDeletion,
    Observed,
)
from kpy.metadata.image import NO_LEADER, NO_STATE, BrokerImage, PartitionImage, TopicImage

COMMAND_COLUMNS = 44


class Transcript:
    """One cluster, as a controller sees it."""

    def __init__(self) -> None:
        self._rng = random.Random(1)
        self._controller = Controller(self._rng)
        self._observed = Observed()
        self._unclean: set[str] = set()
        self._deletion_enabled = True

    def run(self, text: str) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            command = line.partition("->")[0].strip()
            if line.startswith(" ") and "->" in line:
                continue  # What followed another command when this was written.
            if not command or command.startswith("#"):
                lines.append(line)
                continue
            outcome = self._do(command.split())
            happened = outcome if outcome is not None else self._settle()
            lines.append(f"{command:<{COMMAND_COLUMNS}}-> {happened[0] if happened else '(nothing)'}")
            lines += [f"{'':<{COMMAND_COLUMNS}}-> {each}" for each in happened[1:]]
        return "\n".join(lines) + "\n"

    def _do(self, words: list[str]) -> list[str] | None:
        observed = self._observed
        match words:
            case ["brokers", *brokers]:
                named = dict((*map(int, broker.split("@")), 1)[:2] for broker in brokers)
                images = {broker_id: BrokerImage(broker_id, None, {}, epoch) for broker_id, epoch in named.items()}
                self._observed = replace(observed, brokers=images)
            case ["topic", name, *assignment]:
                partitions = tuple(_new(index, _numbers(replicas)) for index, replicas in enumerate(assignment))
                self._put(TopicImage(name, ids.ZERO_ID, partitions))
                self._observed = replace(self._observed, without_id={**observed.without_id, name: ids.ZERO_ID})
            case ["grow", name, replicas]:
                topic = observed.topics[name]
                added = _new(len(topic.partitions), _numbers(replicas))
                self._put(replace(topic, partitions=(*topic.partitions, added)))
            case ["lose-id", name]:
                known = observed.topics[name].topic_id
                self._observed = replace(observed, without_id={**observed.without_id, name: known})
            case ["reassign", where, replicas, adding, removing]:
                name, _, index = where.rpartition("-")
                topic = observed.topics[name]
                partition = replace(
                    topic.partitions[int(index)],
                    replicas=_numbers(replicas),
                    adding=_numbers(adding),
                    removing=_numbers(removing),
                )
                self._put_partitions(name, (partition,))
            case ["delete", name]:
                self._observed = replace(observed, deletions=observed.deletions | {name})
            case ["unclean", name]:
                self._unclean.add(name)
            case ["deletion", "off"]:
                self._deletion_enabled = False
            case ["take-over"]:
                self._controller = Controller(self._rng)
            case ["show"]:
                return [
                    _state(topic.name, partition)
                    for topic in observed.topics.values()
                    for partition in topic.partitions
                ]
            case _:
                raise AssertionError(f"no such command: {words}")
        return None

    def _settle(self) -> list[str]:
        happened: list[str] = []
        while changes := self._controller.decide(
            self._observed, self._unclean, deletion_enabled=self._deletion_enabled
        ):
            for change in changes:
                happened += self._write(change)
        return happened

    def _write(self, change: Change) -> list[str]:
        observed, name = self._observed, change.topic
        match change:
            case AssignTopicId(topic_id=topic_id):
                known = observed.topics[name].topic_id
                self._put(replace(observed.topics[name], topic_id=topic_id))
                without_id = {topic: lost for topic, lost in observed.without_id.items() if topic != name}
                self._observed = replace(self._observed, without_id=without_id)
                return [f"{name} {'gets its id back' if topic_id == known else 'gets an id'}"]
            case CreateStates(partitions=partitions):
                self._put_partitions(name, partitions)
                return [f"new {_state(name, partition)}" for partition in partitions]
            case ChangeStates(partitions=partitions):
                self._put_partitions(name, partitions)
                return [_state(name, partition) for partition in partitions]
            case DeleteTopic() | ForgetDeletion():
                deleted = isinstance(change, DeleteTopic)
                topics = {each: topic for each, topic in observed.topics.items() if not deleted or each != name}
                self._observed = replace(observed, topics=topics, deletions=observed.deletions - {name})
                return [f"{'delete' if deleted else 'forget the deletion of'} {name}"]

    def _put(self, topic: TopicImage) -> None:
        self._observed = replace(self._observed, topics={**self._observed.topics, topic.name: topic})

    def _put_partitions(self, name: str, partitions: tuple[PartitionImage, ...]) -> None:
        topic = self._observed.topics[name]
        changed = {partition.partition: partition for partition in partitions}
        self._put(replace(topic, partitions=tuple(changed.get(each.partition, each) for each in topic.partitions)))


def _new(index: int, replicas: tuple[int, ...]) -> PartitionImage:
    return PartitionImage(index, NO_LEADER, 0, replicas, (), NO_STATE)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _state(topic: str, partition: PartitionImage) -> str:
    where = f"{topic}-{partition.partition}"
    if partition.partition_epoch == NO_STATE:
        return f"{where} no state"
    isr = ",".join(map(str, partition.isr))
    recovering = " recovering" if partition.recovering else ""
    return f"{where} {partition.leader}/{partition.leader_epoch} [{isr}] v{partition.partition_epoch}{recovering}"
