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
    move t-0 [1,3]            somebody asks for a reassignment, `move t-0` for an end of it
    prefer t-0                somebody asks for the preferred leader
    isr t-0 [1]               the leader asks for another ISR, in its epochs; [1]@epoch.partition-epoch in others
    leave 1                   the broker asks to be relieved before it stops
    members                   from now on brokers are told what is decided
    tell 1                    what the broker is told next; it does as it is told
    lose 1                    the same, but it does not arrive
    tell 1 failed=t-0         the same, on a broker whose disk under t-0 has failed
    show                      all states, as leader/epoch isr
"""

import random
import re
from dataclasses import replace

from kpy import ids
from kpy.controller import reassignments
from kpy.controller.broker_requests import BrokerRequests
from kpy.controller.elections import preferred_leader
from kpy.controller.isr_changes import Proposal, judged
from kpy.controller.machine import (
    AssignTopicId,
    Change,
    ChangeAssignments,
    ChangeStates,
    Controller,
    CreateStates,
    DeleteTopic,
    ForgetDeletion,
    Observed,
)
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import NO_LEADER, NO_STATE, BrokerImage, PartitionImage, TopicImage
from kpy.wire.leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
)
from kpy.wire.primitives import Message
from kpy.wire.stop_replica import StopReplicaPartitionError, StopReplicaRequest, StopReplicaResponse
from kpy.wire.update_metadata import UpdateMetadataRequest, UpdateMetadataResponse

COMMAND_COLUMNS = 44
LISTENER = "BETWEEN"


class Transcript:
    """One cluster, as a controller sees it."""

    def __init__(self) -> None:
        self._rng = random.Random(1)
        self._controller = Controller(self._rng)
        self._observed = Observed()
        self._unclean: set[str] = set()
        self._deletion_enabled = True
        self._leaving: set[int] = set()
        self._requests: BrokerRequests | None = None

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
                images = {broker_id: _broker(broker_id, epoch) for broker_id, epoch in named.items()}
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
                self._leaving.clear()
                if self._requests is not None:
                    self._requests = BrokerRequests(1, 2, LISTENER)
            case ["leave", broker_id]:
                self._leaving.add(int(broker_id))
            case ["members"]:
                self._requests = BrokerRequests(1, 1, LISTENER)
            case _:
                return self._answer(words)
        return None

    def _answer(self, words: list[str]) -> list[str]:
        """What has an outcome of its own, besides what the controller decides."""
        match words:
            case ["move", where, *target]:
                return self._move(where, _numbers(target[0]) if target else None)
            case ["prefer", where]:
                return self._prefer(where)
            case ["isr", where, isr]:
                return self._alter(where, isr)
            case ["tell", broker_id, *failed]:
                return self._tell(int(broker_id), {each.removeprefix("failed=") for each in failed})
            case ["lose", broker_id]:
                return self._lose(int(broker_id))
            case ["show"]:
                return [
                    _state(topic.name, partition)
                    for topic in self._observed.topics.values()
                    for partition in topic.partitions
                ]
            case _:
                raise AssertionError(f"no such command: {words}")

    def _settle(self) -> list[str]:
        happened: list[str] = []
        while True:
            requests = self._requests
            self._leaving &= self._observed.brokers.keys()
            self._observed = replace(self._observed, leaving=frozenset(self._leaving))
            if requests is not None:
                self._observed = replace(self._observed, offline=requests.offline, deleted=requests.deleted)
            changes = self._controller.decide(self._observed, self._unclean, deletion_enabled=self._deletion_enabled)
            for change in changes:
                happened += self._write(change)
            if changes:
                continue
            if requests is None:
                return happened
            requests.look(self._observed, deletion_enabled=self._deletion_enabled)
            if requests.deleted == self._observed.deleted:
                return happened

    def _alter(self, where: str, isr: str) -> list[str]:
        name, _, index = where.rpartition("-")
        partition = self._observed.topics[name].partitions[int(index)]
        members, _, epochs = isr.partition("@")
        leader_epoch, partition_epoch = partition.leader_epoch, partition.partition_epoch
        if epochs:
            leader_epoch, partition_epoch = map(int, epochs.split("."))
        proposal = Proposal(leader_epoch, partition_epoch, _numbers(members))
        verdict = judged(partition, proposal, self._observed.brokers.keys() - self._leaving)
        if isinstance(verdict, ApiError):
            return [verdict.code.name]
        if verdict is partition:
            return ["so it is"]
        self._put_partitions(name, (verdict,))
        return [_state(name, verdict), *self._settle()]

    def _move(self, where: str, target: tuple[int, ...] | None) -> list[str]:
        name, _, index = where.rpartition("-")
        partition = self._observed.topics[name].partitions[int(index)]
        verdict = reassignments.judged(partition, target, self._observed.brokers.keys() - self._leaving)
        if isinstance(verdict, ApiError):
            return [f"{verdict.code.name}: {verdict.message}"]
        self._put_partitions(name, (verdict,))
        return [_state(name, verdict), *self._settle()]

    def _prefer(self, where: str) -> list[str]:
        name, _, index = where.rpartition("-")
        partition = self._observed.topics[name].partitions[int(index)]
        elected = preferred_leader(partition, self._observed.brokers.keys() - self._leaving)
        if elected is None:
            return ["(nothing)"]
        self._put_partitions(name, (elected,))
        return [_state(name, elected), *self._settle()]

    def _tell(self, broker_id: int, failed: set[str]) -> list[str]:
        assert self._requests is not None
        batch = self._requests.take(broker_id)
        told: list[str] = []
        decide_anew = False
        for _, request in batch.requests if batch is not None else ():
            told += _told(request)
            response = _obeyed(request, failed)
            decide_anew |= batch is not None and self._requests.answered(batch, response)
        return told + (self._settle() if decide_anew else [])

    def _lose(self, broker_id: int) -> list[str]:
        assert self._requests is not None
        batch = self._requests.take(broker_id)
        assert batch is not None
        self._requests.failed(batch)
        return [line for _, request in batch.requests for line in _told(request)]

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
            case ChangeStates(partitions=partitions) | ChangeAssignments(partitions=partitions):
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
    moving = "".join(
        f" {what} {','.join(map(str, brokers))}"
        for what, brokers in (("adding", partition.adding), ("removing", partition.removing))
        if brokers
    )
    state = f"{where} {partition.leader}/{partition.leader_epoch} [{isr}] v{partition.partition_epoch}{recovering}"
    return f"{state} of {','.join(map(str, partition.replicas))}{moving}" if moving else state


def _broker(broker_id: int, epoch: int) -> BrokerImage:
    return BrokerImage(broker_id, None, {LISTENER: (f"host-{broker_id}", 9092)}, epoch)


def _told(request: Message) -> list[str]:
    """What a broker is told, a line for each partition."""
    match request:
        case LeaderAndIsrRequest(topic_states=topics, live_leaders=leaders):
            lines = [
                f"LeaderAndIsr {topic.topic_name}-{each.partition_index} {each.leader}/{each.leader_epoch}"
                f" [{','.join(map(str, each.isr))}] v{each.partition_epoch}{' new' if each.is_new else ''}"
                for topic in topics
                for each in topic.partition_states
            ]
            return [*lines, f"   led by {' '.join(f'{each.broker_id}={each.host_name}' for each in leaders)}"]
        case UpdateMetadataRequest(topic_states=topics, live_brokers=brokers):
            states = [
                f"{topic.topic_name}-{each.partition_index} {each.leader}/{each.leader_epoch}"
                f" [{','.join(map(str, each.isr))}]{f' away {each.offline_replicas}' if each.offline_replicas else ''}"
                for topic in topics
                for each in topic.partition_states
            ]
            live = " ".join(str(broker.id) for broker in brokers)
            return [f"UpdateMetadata of epoch {request.broker_epoch}: {live} live", *[f"   {each}" for each in states]]
        case StopReplicaRequest(topic_states=topics):
            return [
                f"StopReplica {topic.topic_name}-{each.partition_index}/{each.leader_epoch}"
                for topic in topics
                for each in topic.partition_states
            ]
        case _:
            raise AssertionError(request)


def _obeyed(request: Message, failed: set[str]) -> Message:
    match request:
        case LeaderAndIsrRequest(topic_states=topics):
            answers = [
                LeaderAndIsrTopicError(
                    topic.topic_id,
                    [
                        LeaderAndIsrPartitionError(
                            partition_index=each.partition_index,
                            error_code=ErrorCode.KAFKA_STORAGE_ERROR
                            if f"{topic.topic_name}-{each.partition_index}" in failed
                            else ErrorCode.NONE,
                        )
                        for each in topic.partition_states
                    ],
                )
                for topic in topics
            ]
            return LeaderAndIsrResponse(topics=answers)
        case StopReplicaRequest(topic_states=topics):
            return StopReplicaResponse(
                0,
                [
                    StopReplicaPartitionError(topic.topic_name, each.partition_index)
                    for topic in topics
                    for each in topic.partition_states
                ],
            )
        case _:
            return UpdateMetadataResponse()
