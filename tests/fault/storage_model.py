"""What a log must hold, as a plain list of batches, and whether one does: for the histories of storage_histories.py.

- What the log holds is a run of the list, byte for byte: no batch altered, doubled or out of order. A compacted log
  lacks superseded records, and only those.
- Leader epochs, sequence numbers, aborted and open transactions are those of the batches that are there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kpy.records.batch import BatchHeader, iter_batches, iter_records, read_header
from kpy.storage.log import Log
from kpy.storage.producer_state import parse_marker

IDEMPOTENT = 5
TRANSACTIONAL = (7, 8)


class Batch(NamedTuple):
    """One appended batch, as it must be in the log."""

    header: BatchHeader
    data: bytes
    abort: bool | None
    """Of a marker, whether it aborts; None for data."""


class Txn(NamedTuple):
    producer_id: int
    first_offset: int
    last_offset: int


@dataclass
class Model:
    """The list, and how much of it must be there after what."""

    is_compacted: bool = False
    flushes_each_batch: bool = False
    batches: list[Batch] = field(default_factory=list[Batch])
    end: int = 0
    log_start: int = 0
    hidden_below: int = 0
    """The highest log start there was. A crash may bring records back, without all that is derived from them."""
    flushed_end: int = 0
    """The offset up to which a power cut may take nothing."""
    truncating_to: int | None = None
    """While a truncation runs: where it cuts. It may have got anywhere between there and the old end."""
    maybe: Batch | None = None
    """A batch that was being written when something went wrong."""
    compacted_to: int = 0
    """No truncation goes below: what was superseded below is gone."""

    def hide_below(self, offset: int) -> None:
        self.log_start, self.hidden_below = offset, max(self.hidden_below, offset)

    def next_sequence(self, producer_id: int) -> int:
        mine = [
            each.header
            for each in self.batches
            if each.header.producer_id == producer_id and not each.header.is_control
        ]
        return mine[-1].base_sequence + mine[-1].last_offset_delta + 1 if mine else 0

    def transactions(self) -> tuple[list[Txn], dict[int, int]]:
        """The aborted transactions in the order of their markers, and where each open one begins, by producer."""
        aborted: list[Txn] = []
        begun: dict[int, int] = {}
        for header, _, abort in self.batches:
            if abort is None and header.is_transactional and not header.is_control:
                begun.setdefault(header.producer_id, header.base_offset)
            elif abort is not None and header.producer_id in begun:
                first = begun.pop(header.producer_id)
                if abort:
                    aborted.append(Txn(header.producer_id, first, header.base_offset))
        return aborted, begun


def is_abort(data: bytes) -> bool | None:
    """Of a marker, whether it aborts; None for data."""
    marker = parse_marker(memoryview(data)) if read_header(data).is_control else None
    return None if marker is None else marker.is_abort


def check_log(log: Log, model: Model, max_bytes: int) -> None:
    """Raises AssertionError where the log, read in steps of `max_bytes`, is not what the model says."""
    found = read_all(log, max_bytes)
    there = [each for each in model.batches if each.header.last_offset >= model.log_start]
    if model.is_compacted:
        check_compacted(model, found, there)
    else:
        assert found == [each.data for each in there], "the log is not what was appended"
    for header in map(read_header, found):
        if header.last_offset < model.hidden_below:
            continue
        epoch = log.leader_epochs.epoch_for(max(header.base_offset, model.hidden_below))
        assert epoch == header.partition_leader_epoch, f"epoch {epoch} of {header}"
    check_producers(log, model)


def read_all(log: Log, max_bytes: int) -> list[bytes]:
    """Every batch, by reads of `max_bytes`."""
    found, offset = list[bytes](), log.log_start_offset
    while offset < log.log_end_offset:
        region = log.read(offset, max_bytes, log.log_end_offset, True)
        if region is None:
            break
        for header, data in iter_batches(region.read()):
            found.append(bytes(data))
            offset = header.last_offset + 1
    return found


def check_compacted(model: Model, found: list[bytes], there: list[Batch]) -> None:
    """Every record is one of the model's, and every key has the value that it has in the model."""
    left = [record for data in found for record in iter_records(memoryview(data))]
    offsets = [record.offset for record in left]
    assert offsets == sorted(set(offsets)), f"offsets {offsets}"
    assert set(left) <= {record for each in there for record in iter_records(memoryview(each.data))}
    aborted, begun = model.transactions()
    undecided = set(begun)

    def committed(batches: Iterable[bytes]) -> dict[bytes | None, bytes]:
        table: dict[bytes | None, bytes] = {}
        for data in batches:
            header = read_header(data)
            is_aborted = any(
                txn.producer_id == header.producer_id and txn.first_offset <= header.base_offset <= txn.last_offset
                for txn in aborted
            )
            is_open = header.producer_id in undecided and header.base_offset >= begun[header.producer_id]
            if header.is_control or is_aborted or is_open:
                continue
            for record in iter_records(memoryview(data)):
                if record.value is None:
                    table.pop(record.key, None)
                else:
                    table[record.key] = record.value
        return table

    assert committed(found) == committed(each.data for each in there), "a key has another value"


def check_producers(log: Log, model: Model) -> None:
    """What is known of producers and transactions, for as much of it as the log start has left."""
    producers = log.producer_state.producers
    for producer_id in (IDEMPOTENT, *TRANSACTIONAL):
        mine = [each for each in model.batches if each.header.producer_id == producer_id and not each.header.is_control]
        known = producers.get(producer_id)
        last = mine[-1].header if mine else None
        if last is not None and last.base_offset >= model.hidden_below:
            assert known is not None, f"producer {producer_id} is forgotten"
        # A compacted log may have lost the newest batch to a power cut, and the ones before it to compaction.
        if known is not None and known.batches and (model.flushes_each_batch or not model.is_compacted):
            assert last is not None, f"producer {producer_id} is remembered from nowhere"
            assert known.last_sequence == last.base_sequence + last.last_offset_delta, f"producer {producer_id}"
    aborted, begun = model.transactions()
    if not model.is_compacted:
        named = log.aborted_transactions(model.log_start, model.end)
        indexed = {Txn(*each[:3]) for each in named}
        assert indexed >= {txn for txn in aborted if txn.first_offset >= model.hidden_below}, f"only {indexed}"
        # Where the beginning is hidden, what is left of it may count as the beginning.
        ends = {(txn.producer_id, txn.last_offset) for txn in aborted}
        assert all((txn.producer_id, txn.last_offset) in ends for txn in indexed), f"{indexed}, not {aborted}"
    # A compacted log forgets markers in milliseconds here; an older snapshot then has transactions without end.
    if not model.is_compacted and all(first >= model.hidden_below for first in begun.values()):
        stable = min([*begun.values(), model.end])
        assert log.last_stable_offset == stable, f"last stable offset {log.last_stable_offset}, not {stable}"
