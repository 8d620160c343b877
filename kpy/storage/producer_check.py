"""Whether a log's transaction indexes and producer snapshots agree with its batches.

The producers' batches and markers are replayed as a recovery does it, and what comes of it is compared with the files.
What began before the first batch that is left cannot be known, nor can what compaction has taken; so where the log does
not begin at offset 0, or has gaps, only what can be known is compared.
"""

from collections.abc import Iterator
from functools import partial

from kpy.records.batch import BatchHeader
from kpy.storage.findings import Finding, Severity
from kpy.storage.fs import Fs
from kpy.storage.index import TXN_ENTRY, AbortedTxn, CorruptIndexError, TransactionIndex
from kpy.storage.log_config import LONG_MAX
from kpy.storage.producer_state import NO_OFFSET, Producer, ProducerState, parse_marker
from kpy.storage.snapshots import CorruptSnapshotError, Snapshots, read_snapshot, write_snapshot

_PASSED_OVER = "the next start passes over it and reads an older one, or the log"
_MISLED_COMMITTED = "consumers that read committed are given records of aborted transactions, or miss committed ones"
_RECOVERED = "the next start reads the segment and rebuilds it"


class ProducerCheck:
    """Follows the producers of a log. `due_offset` is the next offset of which there is a snapshot."""

    def __init__(self, fs: Fs, directory: str, names: list[str], start_offset: int) -> None:
        self._fs = fs
        self._start_offset = start_offset
        self._snapshots = Snapshots(fs, directory, names)
        self._unread = [offset for offset in self._snapshots.offsets if offset > start_offset]
        self._state = ProducerState(LONG_MAX)
        self._state.clear(start_offset)
        self._aborted: list[AbortedTxn] = []
        self.has_gaps = False
        """Whether compaction has been here, as far as the walk has come."""
        self.due_offset = self._unread[0] if self._unread else LONG_MAX

    @property
    def knows_all(self) -> bool:
        """Whether the log is there from its first record on, without gaps."""
        return not self._start_offset and not self.has_gaps

    def meet(self, header: BatchHeader, data: memoryview | None) -> None:
        """The walk has come to a sound batch of a producer. `data` is only needed of control batches."""
        if not header.is_control:
            self._state.update(header, header.base_offset)
            return
        marker = parse_marker(data) if data is not None else None
        if marker is not None:
            aborted = self._state.update_marker(header, marker, header.base_offset)
            self._state.high_watermark_moved(header.last_offset + 1)
            if aborted is not None:
                self._aborted.append(aborted)

    # Transaction indexes.

    def finish_segment(self, index: TransactionIndex, is_damaged: bool) -> Iterator[Finding]:
        """Compare the segment's transaction index with the aborts that were met since the last call."""
        path, (expected, self._aborted) = index.path, (self._aborted, [])
        repair = None if is_damaged else partial(_rebuild_txn_index, index, expected)
        try:
            found = index.read()
        except CorruptIndexError as error:
            what = str(error).removeprefix(path).strip()
            yield Finding(Severity.WARNING, path, None, what, _RECOVERED, repair)
            return
        if is_damaged or self.has_gaps:
            return
        known = {(txn.producer_id, txn.last_offset): txn for txn in expected}
        for slot, txn in enumerate(found):
            same = known.pop((txn.producer_id, txn.last_offset), None)
            is_known = txn.first_offset >= self._start_offset
            if same != txn and (self.knows_all or (is_known and same is None)):
                what = f"names {_named(txn)}, which the log does not have"
                yield Finding(Severity.WARNING, path, slot * TXN_ENTRY.size, what, _MISLED_COMMITTED, repair)
                return
        for txn in known.values():
            what = f"lacks {_named(txn)}"
            yield Finding(Severity.WARNING, path, None, what, _MISLED_COMMITTED, repair)
            return

    # Snapshots.

    def pass_snapshots(self, offset: int, is_damaged: bool) -> Iterator[Finding]:
        """Compare the snapshots that were taken up to `offset`, which the walk has reached."""
        while self._unread and self._unread[0] <= offset:
            yield from self._compare_snapshot(self._unread.pop(0), is_damaged)
        self.due_offset = self._unread[0] if self._unread else LONG_MAX

    def finish(self, end_offset: int, is_damaged: bool) -> Iterator[Finding]:
        """The log is at its end."""
        yield from self.pass_snapshots(end_offset, is_damaged)
        for offset in self._unread:
            what = f"is of offset {offset}, behind the end of the log at {end_offset}"
            yield Finding(Severity.WARNING, self._snapshots.path(offset), None, what, "the next start ignores it")

    def _compare_snapshot(self, offset: int, is_damaged: bool) -> Iterator[Finding]:
        path = self._snapshots.path(offset)
        now = self._state.producers
        repair = None
        if not is_damaged:
            repair = partial(self._rebuild_snapshot, path, [_copied(each) for each in now.values()])
        try:
            snapshot = read_snapshot(self._fs, path)
        except CorruptSnapshotError as error:
            what = str(error).removeprefix(path).strip()
            yield Finding(Severity.WARNING, path, None, what, _PASSED_OVER, repair)
            return
        if is_damaged or not self.knows_all:
            return
        for producer in snapshot:
            same = now.get(producer.producer_id)
            if same is None or _facts(same) != _facts(producer):
                what = f"says of producer {producer.producer_id} what the log does not: {_shown(producer)}"
                if same is not None:
                    what += f"; it has {_shown(same)}"
                outcome = "the next start believes it: repetitions of this producer may be taken for new, or refused"
                yield Finding(Severity.WARNING, path, None, what, outcome, repair)
                return

    def _rebuild_snapshot(self, path: str, producers: list[Producer]) -> str:
        write_snapshot(self._fs, path, producers)
        return f"rebuilt from the batches, {len(producers)} producers"


def _facts(producer: Producer) -> tuple[int, ...]:
    """What must agree. Kafka and kpy keep what follows of the rest."""
    return producer.epoch, producer.last_sequence, producer.last_data_offset, producer.current_txn_first_offset


def _shown(producer: Producer) -> str:
    text = f"epoch {producer.epoch}, sequence {producer.last_sequence}, offset {producer.last_data_offset}"
    if producer.current_txn_first_offset != NO_OFFSET:
        text += f", a transaction from {producer.current_txn_first_offset} on"
    return text


def _copied(producer: Producer) -> Producer:
    copy = Producer(producer.producer_id, producer.epoch, producer.coordinator_epoch, producer.last_timestamp)
    copy.current_txn_first_offset = producer.current_txn_first_offset
    copy.batches.extend(producer.batches)
    return copy


def _named(txn: AbortedTxn) -> str:
    return f"the aborted transaction of producer {txn.producer_id} from offset {txn.first_offset} to {txn.last_offset}"


def _rebuild_txn_index(index: TransactionIndex, txns: list[AbortedTxn]) -> str:
    index.reset()
    for txn in txns:
        index.append(txn)
    return f"rebuilt from the markers, {len(txns)} aborted transactions"
