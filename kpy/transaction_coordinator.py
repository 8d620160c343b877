"""The coordinator of transactions: partitions of __transaction_state, each with a machine of kpy/txn.

What it adds to the shell (kpy/coordinator.py): markers. When the end of a transaction is committed, each of its
partitions gets one, and when all have theirs the machine is told. Where this broker leads, it writes them itself; other
leaders are asked to (WriteTxnMarkers), many in one request, and so is a new leader when the old one has gone. A
partition that cannot take its marker now is tried again until it can; one whose topic is gone needs none. That the
coordinator dies in between does no harm: whoever loads the partition of __transaction_state next writes the markers
again, and the second one of two changes nothing.

A marker carries the leader epoch of the partition of __transaction_state, so that a coordinator that does not know yet
that it is none any more cannot end what its successor has begun (KIP-98; Kafka class TransactionMarkerChannelManager).

A leader that does not know of a producer's transaction asks its coordinator, here or elsewhere: `admit` (KIP-890).
"""

import logging
from collections import deque
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from kpy.controller.topics import CONSUMER_OFFSETS, TRANSACTION_STATE
from kpy.coordinator import Asker, Asking, Coordinator, Led, Replicas, StateTopic, Topics
from kpy.errors import ApiError, ErrorCode
from kpy.group_coordinator import GroupCoordinator
from kpy.metadata.image import MetadataImage
from kpy.pending import Pending
from kpy.records.batch import build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL, Commit, Partition
from kpy.storage.producer_state import EndMarker, marker_record
from kpy.txn.config import TransactionConfig

if TYPE_CHECKING:
    # Not at run time: all this is imported with the first transaction or record of one, or for the other brokers.
    from kpy.peer_queues import PeerQueues
    from kpy.peers import PeerChannel
    from kpy.txn.marking import MarkerOf, Marking
    from kpy.txn.shard import TransactionShard, TxnMarkers
    from kpy.txn.transaction import TopicPartition, Transaction
    from kpy.txn.verification import Question
    from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnResult
    from kpy.wire.list_transactions import TransactionState

log = logging.getLogger("kpy.transactions")

RETRY_MS = 100
"""After how long a partition that could not take its marker is tried again."""
MARKERS_A_SLICE = 100
"""How many markers are written before other tasks get their turn."""

WRITE_TXN_MARKERS = (27, 1)
ADD_PARTITIONS_TO_TXN = (24, 5)
"""The version of Apache Kafka 3.8, which leaders of 3.9 use."""

Told = Callable[[int], None]
"""Told the error code of a marker."""


@dataclass(frozen=True, slots=True)
class TransactionCoordinatorConfig:
    """The broker keys that the shell obeys; `transactions` are those of the machines."""

    transactions: TransactionConfig = field(default_factory=TransactionConfig)
    transaction_state_log_num_partitions: int = 50
    transaction_state_log_replication_factor: int = 3
    transaction_state_log_min_isr: int = 2
    transaction_state_log_segment_bytes: int = 100 * 1024 * 1024

    def topic(self) -> StateTopic:
        return StateTopic(
            TRANSACTION_STATE,
            self.transaction_state_log_num_partitions,
            self.transaction_state_log_replication_factor,
            {
                "cleanup.policy": "compact",
                "compression.type": "uncompressed",
                "min.insync.replicas": str(self.transaction_state_log_min_isr),
                "segment.bytes": str(self.transaction_state_log_segment_bytes),
                "unclean.leader.election.enable": "false",
            },
        )


class Others:
    """The other brokers, and what they are asked. `broker_id` is this broker's own."""

    __slots__ = ("broker_id", "markers", "questions")

    def __init__(self, broker_id: int, markers: "PeerQueues[MarkerOf]", questions: "PeerQueues[Question]") -> None:
        self.broker_id = broker_id
        self.markers = markers
        self.questions = questions

    def keep(self, alive: Container[int]) -> None:
        self.markers.keep(alive)
        self.questions.keep(alive)


class TransactionCoordinator(Coordinator["TransactionShard"]):
    """All transactional ids that this broker coordinates."""

    def __init__(
        self,
        replicas: Replicas,
        cluster: Topics,
        groups: GroupCoordinator,
        config: TransactionCoordinatorConfig,
        new_producer_id: Callable[[], int],
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(config.topic(), replicas, cluster, now_ms)
        self.config = config
        self._groups = groups
        self._new_producer_id = new_producer_id
        self._unfinished: dict[Marking, None] = {}
        """What has partitions left, or has to try some again; in the order of their turns."""
        self._marking_work = trio.Event()
        self._others: Others | None = None

    def cooperate(self, broker_id: int, open_peer: "Callable[[int], PeerChannel]") -> None:
        """From now on other brokers lead partitions, or coordinate transactions. Called before `run`."""
        from kpy.peer_queues import PeerQueues
        from kpy.txn.verification import take_questions

        self._others = Others(
            broker_id,
            PeerQueues(open_peer, self._take_markers, self._ask_for_markers, self._markers_lost),
            PeerQueues(open_peer, take_questions, _ask_coordinator, _questions_lost),
        )

    def apply(self, image: MetadataImage) -> None:
        super().apply(image)
        if self._others is not None:
            self._others.keep(image.brokers)

    # -- requests ----------------------------------------------------------------------------------------------------

    def tell(self, key: str, message: Any, client: Asker) -> Any:
        """As of every coordinator; but no transactional id is empty, wherever that would live."""
        if key == "":
            return self._refusal(message, client.version, ErrorCode.INVALID_REQUEST)
        return super().tell(key, message, client)

    def list_transactions(self, wanted: "Callable[[Transaction], bool]") -> "tuple[ErrorCode, list[TransactionState]]":
        """Every transactional id coordinated here. While a shard is loading, there is no list."""
        listed: list[TransactionState] = []
        for led in self._led.values():
            if not led.is_loaded:
                return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, []
            if led.machine is not None:
                listed += led.machine.listed(wanted)
        return ErrorCode.NONE, listed

    def admit(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: "Iterable[TopicPartition]",
        *,
        adds: bool,
    ) -> "AddPartitionsToTxnResult | Pending[AddPartitionsToTxnResult]":
        """Whether a producer may write to these partitions in its transaction (KIP-890).

        With transaction version 2 writing `adds` them; before, the producer has to have added them. A marker may come
        before the answer does, if that comes later: see ProducerState.watch.
        """
        from kpy.txn.shard import ADDED_BY_BROKER_SINCE
        from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction

        topics: dict[str, AddPartitionsToTxnTopic] = {}
        for topic, index in partitions:
            topics.setdefault(topic, AddPartitionsToTxnTopic(topic)).partitions.append(index)
        message = AddPartitionsToTxnTransaction(
            transactional_id, producer_id, producer_epoch, not adds, list(topics.values())
        )
        coordinator = self._other_coordinator(transactional_id)
        if self._others is not None and coordinator is not None:
            from kpy.txn.verification import Question

            question = Question(message, Pending())
            self._others.questions.put(coordinator, question)
            return question.pending
        return self.tell(transactional_id, message, Asking(version=ADDED_BY_BROKER_SINCE))

    # -- markers -----------------------------------------------------------------------------------------------------

    def write_marker(
        self,
        topic: str,
        index: int,
        producer_id: int,
        producer_epoch: int,
        *,
        commits: bool,
        coordinator_epoch: int,
        told: Told,
    ) -> tuple[Partition, Commit] | None:
        """End the transaction of a producer in one partition of this broker. `told` hears when that is committed, which
        may be at once, or why it will not be; where it is waited for, that is returned.

        Raises ApiError, and then nothing was appended: INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED if a
        later end is known there, NOT_LEADER_OR_FOLLOWER, and what else hinders an append.
        """
        now_ms = self._now_ms()
        marker = EndMarker(is_abort=not commits, coordinator_epoch=coordinator_epoch)
        data = build_batch(
            [marker_record(marker, now_ms)],
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            transactional=True,
            control=True,
        )
        batch = ValidBatch(read_header(data), memoryview(data), -1)
        partition = self._replicas.partition(topic, index)
        if topic == CONSUMER_OFFSETS:
            info = self._groups.append_marker(index, batch, committed=commits, now_ms=now_ms)
        else:
            info = partition.append(batch, ACKS_ALL, now_ms)
        if info.last_offset < partition.high_watermark:
            told(ErrorCode.NONE)
            return None
        return partition, partition.when_committed(info.last_offset + 1, told)

    def _act(self, led: "Led[TransactionShard]", action: "TxnMarkers") -> None:
        """Few markers are written at once, so that whoever hears of the end finds it done; many go in slices."""
        from kpy.txn.marking import Marking

        marking = Marking(action, led.leader_epoch, led)
        if len(marking.left) <= MARKERS_A_SLICE:
            self._go_on(marking)
        else:
            self._postpone(marking)

    def _go_on(self, marking: "Marking") -> None:
        """Have the next slice of markers written; what is left afterwards has another turn."""
        self._unfinished.pop(marking, None)
        if not self._is_current(marking):
            return
        if marking.is_done:
            self._all_marked(marking)
            return
        for partition in marking.take(MARKERS_A_SLICE):
            self._mark(marking, partition)
        if marking.left:
            self._postpone(marking)

    def _mark(self, marking: "Marking", partition: "TopicPartition") -> None:
        (topic, index), markers = partition, marking.markers
        told = partial(self._settle, marking, partition)
        found = self._cluster.image.topics.get(topic)
        if found is None or index >= len(found.partitions):
            told(ErrorCode.NONE)  # It is deleted.
            return
        try:
            self.write_marker(
                topic,
                index,
                markers.producer_id,
                markers.producer_epoch,
                commits=markers.commits,
                coordinator_epoch=marking.coordinator_epoch,
                told=told,
            )
        except ApiError as error:
            leader = found.partitions[index].leader
            is_elsewhere = error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER and self._is_other(leader)
            if is_elsewhere and self._others is not None:
                self._others.markers.put(leader, (marking, partition))
            else:
                told(error.code)

    def _settle(self, marking: "Marking", partition: "TopicPartition", error: int) -> None:
        """One partition's leader has answered, or was lost."""
        from kpy.txn.marking import VERDICTS, Verdict

        if not self._is_current(marking):
            return
        verdict, markers = marking.settle(partition, error), marking.markers
        where = f"{partition[0]}-{partition[1]}"
        if verdict is Verdict.GIVE_UP:
            log.warning("%s: not ended here any more: %s from %s", markers.transactional_id, _name(error), where)
            self._unfinished.pop(marking, None)
        elif verdict is Verdict.ASK_AGAIN:
            level = logging.DEBUG if error in VERDICTS else logging.WARNING
            log.log(level, "%s: no marker in %s yet: %s", markers.transactional_id, where, _name(error))
            self._postpone(marking)
        if marking.is_done:
            self._all_marked(marking)

    def _all_marked(self, marking: "Marking") -> None:
        from kpy.txn.shard import MarkersWritten

        led: Led[TransactionShard] = marking.term
        markers = marking.markers
        self._handle(led, MarkersWritten(markers))
        found = led.machine.transactions.get(markers.transactional_id) if led.machine is not None else None
        producer = markers.producer_id, markers.producer_epoch
        if found is not None and found.state.is_prepared and (found.producer_id, found.producer_epoch) == producer:
            # The last record could not be written.
            self._postpone(marking)

    def _is_current(self, marking: "Marking") -> bool:
        """False when another coordinator, or this one in a later term, has taken over."""
        led: Led[TransactionShard] = marking.term
        return not marking.is_given_up and self._led.get(led.partition.partition) is led

    def _postpone(self, marking: "Marking") -> None:
        self._unfinished[marking] = None
        self._marking_work.set()

    # -- other brokers -----------------------------------------------------------------------------------------------

    def _is_other(self, broker_id: int) -> bool:
        """Whether it is another broker, and known to live."""
        others = self._others
        return others is not None and broker_id != others.broker_id and broker_id in self._cluster.image.brokers

    def _other_coordinator(self, transactional_id: str) -> int | None:
        """The other broker that coordinates this id, as far as is known. None for this one, and for nobody."""
        index = self.partition_for(transactional_id)
        if not transactional_id or self.topic is None or index in self._led:
            return None
        leader = self.topic.partitions[index].leader
        return leader if self._is_other(leader) else None

    def _take_markers(self, waiting: "deque[MarkerOf]") -> "list[MarkerOf]":
        from kpy.txn.marking import take_markers

        return take_markers(waiting, self._is_current)

    async def _ask_for_markers(self, peer: "PeerChannel", items: "list[MarkerOf]") -> None:
        from kpy.txn.marking import markers_errors, markers_request

        key, version = WRITE_TXN_MARKERS
        response = await peer.ask(key, markers_request(items), version)
        for (marking, partition), error in markers_errors(items, response):
            self._settle(marking, partition, error)

    def _markers_lost(self, items: "list[MarkerOf]", reason: str) -> None:
        if items:
            log.info("%d markers are to be written elsewhere, or again: %s", len(items), reason)
        for marking, partition in items:
            self._settle(marking, partition, ErrorCode.NETWORK_EXCEPTION)

    # -- background --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            nursery.start_soon(self._finish_markers)
            if self._others is not None:
                nursery.start_soon(self._others.markers.run)
                nursery.start_soon(self._others.questions.run)

    async def _finish_markers(self) -> None:
        """Go on with what could not be done at once, until cancelled."""
        while True:
            await self._marking_work.wait()
            self._marking_work = trio.Event()
            while going_on := [marking for marking in self._unfinished if marking.left]:
                for marking in going_on:
                    self._go_on(marking)
                    await trio.lowlevel.checkpoint()
            if self._unfinished:
                await trio.sleep(RETRY_MS / 1000)
                for marking in tuple(self._unfinished):
                    marking.retry()
                    self._go_on(marking)
                    await trio.lowlevel.checkpoint()

    # -- what is asked of every coordinator --------------------------------------------------------------------------

    def _new_machine(self) -> "TransactionShard":
        from kpy.txn.shard import TransactionShard

        return TransactionShard(self.config.transactions, self._new_producer_id)

    def _refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        from kpy.txn.answers import refusal

        return refusal(message, version, error)

    def _append_refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        from kpy.txn.answers import append_refusal

        return append_refusal(message, version, error)


async def _ask_coordinator(peer: "PeerChannel", questions: "list[Question]") -> None:
    from kpy.txn.verification import question_results, questions_request

    key, version = ADD_PARTITIONS_TO_TXN
    response = await peer.ask(key, questions_request(questions), version)
    for question, result in question_results(questions, response):
        question.pending.complete(result)


def _questions_lost(questions: "list[Question]", reason: str) -> None:
    if questions:
        log.info("%d transactions cannot be verified now: %s", len(questions), reason)
    for question in questions:
        question.refuse(ErrorCode.NETWORK_EXCEPTION)


def _name(error: int) -> str:
    return ErrorCode(error).name if error in set(ErrorCode) else str(error)
