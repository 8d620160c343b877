"""What a partition remembers of its idempotent and transactional producers (KIP-98, Kafka class ProducerStateManager).

For each producer id: its epoch, its last five batches by sequence number, and where its open transaction began. A batch
that repeats one of the five is answered again, a gap in the sequence is refused. The first batch of an unknown producer
is accepted with any sequence, because its state may have expired with its records.

An open transaction holds back the last stable offset from its first record until its marker is below the high
watermark. So a transaction is *ongoing* until its marker is appended and *unreplicated* until the high watermark has
passed the marker.

After a restart the state is read from a snapshot (snapshots.py), and from the batches that the log has since.
"""

import struct
from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from kpy.errors import ApiError, ErrorCode
from kpy.records.batch import BatchHeader, NewRecord, iter_records
from kpy.storage.index import AbortedTxn

BATCHES_REMEMBERED = 5
MAX_PRODUCERS = 1_000_000
"""Producers remembered by one partition; above it the tenth that was silent longest is forgotten."""

NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
NO_OFFSET = -1
NO_EPOCH = -1
MAX_SEQUENCE = 0x7FFFFFFF

ABORT = 0
COMMIT = 1
_MARKER_KEY = struct.Struct(">hh")
_MARKER_VALUE = struct.Struct(">hi")
MAX_MARKER_BYTES = 1024


class ProducedBatch(NamedTuple):
    """One remembered batch."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int

    @property
    def first_sequence(self) -> int:
        return (self.last_sequence - self.offset_delta) & MAX_SEQUENCE

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


class EndMarker(NamedTuple):
    """The content of a transaction's control record."""

    is_abort: bool
    coordinator_epoch: int


class Producer:
    """One producer's state. `last_timestamp` is the latest batch's max timestamp, in ms."""

    __slots__ = ("batches", "coordinator_epoch", "current_txn_first_offset", "epoch", "last_timestamp", "producer_id")

    def __init__(self, producer_id: int, epoch: int, coordinator_epoch: int = -1, last_timestamp: int = -1) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.coordinator_epoch = coordinator_epoch
        self.last_timestamp = last_timestamp
        self.current_txn_first_offset = NO_OFFSET
        self.batches: deque[ProducedBatch] = deque(maxlen=BATCHES_REMEMBERED)

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    @property
    def last_data_offset(self) -> int:
        return self.batches[-1].last_offset if self.batches else NO_OFFSET


class Watch:
    """Somebody waits to hear whether a producer is in a transaction (Kafka class VerificationGuard)."""

    __slots__ = ("has_ended", "producer_id")

    def __init__(self, producer_id: int) -> None:
        self.producer_id = producer_id
        self.has_ended = False


class _Transactions:
    """The transactions of one partition. Most partitions have none, so this is only there where there was one."""

    __slots__ = ("ongoing", "unreplicated", "watched")

    def __init__(self) -> None:
        self.ongoing: list[tuple[int, int]] = []
        """(first offset, producer id), by offset."""
        self.unreplicated: list[tuple[int, int]] = []
        """(first offset, offset of the marker), by the first."""
        self.watched: dict[Watch, None] = {}

    def first_unstable_offset(self) -> int | None:
        ongoing = self.ongoing[0][0] if self.ongoing else None
        unreplicated = self.unreplicated[0][0] if self.unreplicated else None
        if ongoing is None or unreplicated is None:
            return unreplicated if ongoing is None else ongoing
        return min(ongoing, unreplicated)


class ProducerState:
    """All producers of one partition.

    `check` before a write and `update` after it, so that a failed write changes nothing. `map_end_offset` is the offset
    up to which the log is accounted for.
    """

    def __init__(self, expiration_ms: int) -> None:
        self.expiration_ms = expiration_ms
        self.producers: dict[int, Producer] = {}
        self.map_end_offset = 0
        self._transactions: _Transactions | None = None

    # What an append asks and tells.

    def check(self, header: BatchHeader) -> ProducedBatch | None:
        """None when the batch may be appended, the remembered batch when it is a repetition.

        Raises ApiError OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH or INVALID_TXN_STATE.
        """
        producer = self.producers.get(header.producer_id)
        if producer is None and header.producer_epoch < NO_EPOCH:
            raise ApiError(ErrorCode.INVALID_PRODUCER_EPOCH, f"Epoch {header.producer_epoch} cannot be")
        if producer is None:
            return None
        first_sequence = header.base_sequence
        if first_sequence == NO_SEQUENCE and header.producer_epoch >= producer.epoch:
            pass  # A coordinator's records of a transaction have no sequence; clients' without one are refused before.
        elif header.producer_epoch == producer.epoch:
            if first_sequence != ((producer.last_sequence + 1) & MAX_SEQUENCE):
                return self._repeated(producer, header)
        elif header.producer_epoch < producer.epoch:
            raise ApiError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"Epoch of producer {header.producer_id} is {header.producer_epoch}, "
                f"which is smaller than the last seen epoch {producer.epoch}",
            )
        elif first_sequence != 0:
            raise ApiError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"Invalid sequence number for new epoch of producer {header.producer_id}: "
                f"{header.producer_epoch} (request epoch), {first_sequence} (seq. number), "
                f"{producer.epoch} (current producer epoch)",
            )
        if producer.current_txn_first_offset != NO_OFFSET and not header.is_transactional:
            raise ApiError(
                ErrorCode.INVALID_TXN_STATE, f"Expected transactional write from producer {header.producer_id}"
            )
        return None

    def _repeated(self, producer: Producer, header: BatchHeader) -> ProducedBatch:
        last_sequence = (header.base_sequence + header.last_offset_delta) & MAX_SEQUENCE
        for batch in producer.batches:
            if batch.last_sequence == last_sequence and batch.first_sequence == header.base_sequence:
                return batch
        raise ApiError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"Out of order sequence number for producer {header.producer_id}: {header.base_sequence} "
            f"(incoming seq. number), {producer.last_sequence} (current end sequence number)",
        )

    def check_marker(self, header: BatchHeader, marker: EndMarker) -> None:
        """Raises ApiError INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED for a marker from the past."""
        producer = self.producers.get(header.producer_id)
        if producer is None:
            return
        if header.producer_epoch < producer.epoch:
            raise ApiError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"Epoch of producer {header.producer_id} is {header.producer_epoch}, "
                f"which is smaller than the last seen epoch {producer.epoch}",
            )
        if marker.coordinator_epoch < producer.coordinator_epoch:
            raise ApiError(
                ErrorCode.TRANSACTION_COORDINATOR_FENCED,
                f"Invalid coordinator epoch for producer {header.producer_id}: {marker.coordinator_epoch} (zombie), "
                f"{producer.coordinator_epoch} (current)",
            )

    def update(self, header: BatchHeader, base_offset: int) -> None:
        """Account for a data batch that was written at `base_offset`."""
        producer = self.producers.get(header.producer_id)
        if producer is None:
            producer = self._remember(Producer(header.producer_id, header.producer_epoch))
        elif producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches.clear()
        delta = header.last_offset_delta
        has_sequence = header.base_sequence != NO_SEQUENCE
        last_sequence = (header.base_sequence + delta) & MAX_SEQUENCE if has_sequence else NO_SEQUENCE
        producer.batches.append(ProducedBatch(last_sequence, base_offset + delta, delta, header.max_timestamp))
        producer.last_timestamp = header.max_timestamp
        if header.is_transactional and producer.current_txn_first_offset == NO_OFFSET:
            producer.current_txn_first_offset = base_offset
            insort(self._have_transactions().ongoing, (base_offset, header.producer_id))
        self.map_end_offset = base_offset + delta + 1

    def update_marker(self, header: BatchHeader, marker: EndMarker, offset: int) -> AbortedTxn | None:
        """Account for a marker written at `offset`; the aborted transaction for the index, if it ended one."""
        producer = self.producers.get(header.producer_id)
        if producer is None:
            producer = self._remember(Producer(header.producer_id, header.producer_epoch))
        if producer.epoch != header.producer_epoch:
            producer.epoch = header.producer_epoch
            producer.batches.clear()
        first_offset = producer.current_txn_first_offset
        producer.current_txn_first_offset = NO_OFFSET
        producer.coordinator_epoch = marker.coordinator_epoch
        producer.last_timestamp = header.max_timestamp
        self.map_end_offset = offset + 1
        transactions = self._have_transactions()
        for watch in transactions.watched:
            if watch.producer_id == header.producer_id:
                watch.has_ended = True
        if first_offset == NO_OFFSET:
            return None
        transactions.ongoing.remove((first_offset, header.producer_id))
        insort(transactions.unreplicated, (first_offset, offset))
        if not marker.is_abort:
            return None
        last_stable_offset = transactions.ongoing[0][0] if transactions.ongoing else offset + 1
        return AbortedTxn(header.producer_id, first_offset, offset, last_stable_offset)

    def _remember(self, producer: Producer) -> Producer:
        if len(self.producers) >= MAX_PRODUCERS:
            self._forget_silent()
        self.producers[producer.producer_id] = producer
        return producer

    def _forget_silent(self) -> None:
        idle = [each for each in self.producers.values() if each.current_txn_first_offset == NO_OFFSET]
        idle.sort(key=lambda each: each.last_timestamp)
        for producer in idle[: MAX_PRODUCERS // 10]:
            del self.producers[producer.producer_id]

    def is_in_transaction(self, producer_id: int, producer_epoch: int) -> bool:
        """Whether this producer, with this epoch, has written here in a transaction that is still open."""
        producer = self.producers.get(producer_id)
        return (
            producer is not None and producer.epoch == producer_epoch and producer.current_txn_first_offset != NO_OFFSET
        )

    def watch(self, producer_id: int) -> "Watch":
        """Watch for the end of a transaction, while its coordinator is asked about it, until `unwatch`."""
        watch = Watch(producer_id)
        self._have_transactions().watched[watch] = None
        return watch

    def unwatch(self, watch: "Watch") -> bool:
        """Whether no transaction of the producer has ended meanwhile: then the coordinator's answer still holds."""
        del self._have_transactions().watched[watch]
        return not watch.has_ended

    # The last stable offset.

    def first_unstable_offset(self) -> int | None:
        """Where the oldest transaction begins that is open, or whose marker the high watermark has not passed."""
        return None if self._transactions is None else self._transactions.first_unstable_offset()

    def high_watermark_moved(self, high_watermark: int) -> None:
        transactions = self._transactions
        if transactions is not None and transactions.unreplicated:
            transactions.unreplicated = [txn for txn in transactions.unreplicated if txn[1] >= high_watermark]

    # Time, truncation and snapshots.

    def expire(self, now_ms: int) -> None:
        """Forget the producers that have been silent for the expiration time and have no open transaction."""
        expired = [
            producer_id
            for producer_id, producer in self.producers.items()
            if producer.current_txn_first_offset == NO_OFFSET and now_ms - producer.last_timestamp >= self.expiration_ms
        ]
        for producer_id in expired:
            del self.producers[producer_id]

    def clear(self, map_end_offset: int) -> None:
        self.producers.clear()
        if self._transactions is not None:
            self._transactions.ongoing.clear()
            self._transactions.unreplicated.clear()
        self.map_end_offset = map_end_offset

    def load(self, producers: Iterable[Producer], map_end_offset: int) -> None:
        """Start from a snapshot's content."""
        self.clear(map_end_offset)
        for producer in producers:
            self.producers[producer.producer_id] = producer
            if producer.current_txn_first_offset != NO_OFFSET:
                insort(self._have_transactions().ongoing, (producer.current_txn_first_offset, producer.producer_id))

    def _have_transactions(self) -> _Transactions:
        if self._transactions is None:
            self._transactions = _Transactions()
        return self._transactions


def marker_record(marker: EndMarker, timestamp_ms: int) -> NewRecord:
    """The one record of the control batch that ends a transaction."""
    kind = ABORT if marker.is_abort else COMMIT
    return NewRecord(timestamp_ms, _MARKER_KEY.pack(0, kind), _MARKER_VALUE.pack(0, marker.coordinator_epoch))


def parse_marker(batch: memoryview) -> EndMarker | None:
    """The end of transaction in a control batch; None for an emptied batch and for control records of other kinds."""
    for record in iter_records(batch, MAX_MARKER_BYTES):
        if record.key is None or record.value is None or len(record.key) < _MARKER_KEY.size:
            return None
        _, kind = _MARKER_KEY.unpack_from(record.key)
        if kind not in (ABORT, COMMIT) or len(record.value) < _MARKER_VALUE.size:
            return None
        _, coordinator_epoch = _MARKER_VALUE.unpack_from(record.value)
        return EndMarker(kind == ABORT, coordinator_epoch)
    return None
