"""The coordinator of transactions: partitions of __transaction_state, each with a machine of kpy/txn.

What it adds to the shell (kpy/coordinator.py): markers. When the end of a transaction is committed, each of its
partitions gets one, and when all have theirs the machine is told. A partition that cannot take its marker now is tried
again until it can; one whose topic is gone needs none. That the coordinator dies in between does no harm: whoever loads
the partition of __transaction_state next writes the markers again, and the second one of two changes nothing.

A marker carries the leader epoch of the partition of __transaction_state, so that a coordinator that does not know yet
that it is none any more cannot end what its successor has begun (KIP-98; Kafka class TransactionMarkerChannelManager).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from kpy.controller.topics import CONSUMER_OFFSETS, TRANSACTION_STATE
from kpy.coordinator import Asker, Asking, Coordinator, Led, Replicas, StateTopic, Topics
from kpy.errors import ApiError, ErrorCode
from kpy.group_coordinator import GroupCoordinator
from kpy.pending import Pending
from kpy.records.batch import build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.partition import ACKS_ALL, Partition
from kpy.storage.producer_state import EndMarker, marker_record
from kpy.txn.answers import append_refusal, refusal
from kpy.txn.shard import ADDED_BY_BROKER_SINCE, MarkersWritten, TransactionConfig, TransactionShard, TxnMarkers
from kpy.txn.transaction import TopicPartition, Transaction
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.list_transactions import TransactionState

log = logging.getLogger("kpy.transactions")

RETRY_MS = 100
"""After how long a partition that could not take its marker is tried again."""
MARKERS_A_SLICE = 100
"""How many markers are written before other tasks get their turn."""

FENCED = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.TRANSACTION_COORDINATOR_FENCED})
"""The partition knows of a later end: another coordinator has taken over."""

Appended = tuple[Partition, int]
"""Where a marker was appended, and at which offset."""


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


@dataclass(slots=True, eq=False)
class Marking:
    """The end of one transaction on its way to the partitions."""

    led: Led[TransactionShard]
    markers: TxnMarkers
    left: list[TopicPartition]
    appended: list[Appended]


class TransactionCoordinator(Coordinator[TransactionShard]):
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
        self._unfinished: list[Marking] = []
        self._uncommitted: list[tuple[list[Appended], Callable[[], None]]] = []
        self._marking_work = trio.Event()

    # -- requests ----------------------------------------------------------------------------------------------------

    def tell(self, key: str, message: Any, client: Asker) -> Any:
        """As of every coordinator; but no transactional id is empty, wherever that would live."""
        if key == "":
            return refusal(message, client.version, ErrorCode.INVALID_REQUEST)
        return super().tell(key, message, client)

    def list_transactions(self, wanted: Callable[[Transaction], bool]) -> tuple[ErrorCode, list[TransactionState]]:
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
        partitions: Iterable[TopicPartition],
        *,
        adds: bool,
    ) -> AddPartitionsToTxnResult | Pending[AddPartitionsToTxnResult]:
        """Whether a producer may write to these partitions in its transaction (KIP-890).

        With transaction version 2 writing `adds` them; before, the producer has to have added them. Nothing can come
        between the answer and an append that follows at once, so a marker never ends a transaction in between.
        """
        topics: dict[str, AddPartitionsToTxnTopic] = {}
        for topic, index in partitions:
            topics.setdefault(topic, AddPartitionsToTxnTopic(topic)).partitions.append(index)
        message = AddPartitionsToTxnTransaction(
            transactional_id, producer_id, producer_epoch, not adds, list(topics.values())
        )
        return self.tell(transactional_id, message, Asking(version=ADDED_BY_BROKER_SINCE))

    # -- markers -----------------------------------------------------------------------------------------------------

    def write_marker(
        self, topic: str, index: int, producer_id: int, producer_epoch: int, *, commits: bool, coordinator_epoch: int
    ) -> Appended:
        """End the transaction of a producer in one partition of this broker; it counts once that is committed.

        Raises ApiError: FENCED if a later end is known there, UNKNOWN_TOPIC_OR_PARTITION if it is gone, and what else
        hinders an append, after which it may be tried again.
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
        return partition, info.last_offset

    def when_committed(self, appended: list[Appended], then: Callable[[], None]) -> None:
        """Call `then` once all of these are committed, which is now where there are no other replicas."""
        if all(partition.high_watermark > offset for partition, offset in appended):
            then()
        else:
            self._uncommitted.append((appended, then))
            self._marking_work.set()

    def committed_in(self, topic: str, index: int) -> None:
        super().committed_in(topic, index)
        if self._uncommitted:
            waiting, self._uncommitted = self._uncommitted, []
            for appended, then in waiting:
                self.when_committed(appended, then)

    def _act(self, led: Led[TransactionShard], action: TxnMarkers) -> None:
        """Few markers are written at once, so that whoever hears of the end finds it done; many go in slices."""
        marking = Marking(led, action, sorted(action.partitions), [])
        if len(marking.left) <= MARKERS_A_SLICE:
            self._mark(marking)
        else:
            self._postpone(marking)

    def _mark(self, marking: Marking) -> None:
        """Write the next slice of markers; what is left afterwards is tried again later."""
        now, later = marking.left[:MARKERS_A_SLICE], marking.left[MARKERS_A_SLICE:]
        failed: list[TopicPartition] = []
        markers, epoch = marking.markers, marking.led.leader_epoch
        for topic, index in now:
            try:
                producer = markers.producer_id, markers.producer_epoch
                marking.appended.append(
                    self.write_marker(topic, index, *producer, commits=markers.commits, coordinator_epoch=epoch)
                )
            except ApiError as error:
                if error.code in FENCED:
                    log.warning("%s: not ended here any more: %s", markers.transactional_id, error)
                    return
                if self._exists(topic, index):
                    failed.append((topic, index))
        marking.left = later + failed
        if marking.left:
            self._postpone(marking)
        else:
            self.when_committed(marking.appended, partial(self._all_marked, marking))

    def _all_marked(self, marking: Marking) -> None:
        led, markers = marking.led, marking.markers
        if not self._is_led(led):
            return
        self._handle(led, MarkersWritten(markers))
        found = led.machine.transactions.get(markers.transactional_id) if led.machine is not None else None
        producer = markers.producer_id, markers.producer_epoch
        if found is not None and found.state.is_prepared and (found.producer_id, found.producer_epoch) == producer:
            # The last record could not be written.
            self._postpone(marking)

    def _exists(self, topic: str, index: int) -> bool:
        found = self._cluster.image.topics.get(topic)
        return found is not None and index < len(found.partitions)

    def _is_led(self, led: Led[TransactionShard]) -> bool:
        """False when another coordinator, or this one in a later term, has taken over."""
        return self._led.get(led.partition.partition) is led

    def _postpone(self, marking: Marking) -> None:
        self._unfinished.append(marking)
        self._marking_work.set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            nursery.start_soon(self._finish_markers)

    async def _finish_markers(self) -> None:
        """Write the markers that could not be written at once, until cancelled."""
        while True:
            await self._marking_work.wait()
            self._marking_work = trio.Event()
            unfinished, self._unfinished = self._unfinished, []
            left_before = sum(len(marking.left) for marking in unfinished)
            for marking in unfinished:
                if self._is_led(marking.led):
                    self._mark(marking)
                await trio.lowlevel.checkpoint()
            if self._unfinished and sum(len(marking.left) for marking in self._unfinished) >= left_before:
                await trio.sleep(RETRY_MS / 1000)

    # -- what is asked of every coordinator --------------------------------------------------------------------------

    def _new_machine(self) -> TransactionShard:
        return TransactionShard(self.config.transactions, self._new_producer_id)

    def _refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        return refusal(message, version, error)

    def _append_refusal(self, message: Any, version: int, error: ErrorCode) -> Any:
        return append_refusal(message, version, error)
