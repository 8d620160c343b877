"""Log compaction: of the records with the same key only the last one stays (Kafka classes LogCleaner, Cleaner).

A compacted log has a clean head, where every key occurs once, and a dirty tail behind the cleaner's checkpoint. A round
reads the dirty part into a map from key to last offset, then copies all segments below the round's end without the
records that the map shows to be superseded. Offsets never change, so gaps appear. Small neighbours are merged into one
segment.

Tombstones (records without value) and transaction markers must outlive the slowest reader. The first round that meets
one stamps its batch with a delete horizon, now + delete.retention.ms, in the place of the base timestamp (KIP-534); a
round after the horizon drops it. Records of aborted transactions are dropped; a marker only once its transaction has no
data left. The last batch of each live producer stays, emptied if need be, because the producer's sequence number is in
it.

Crash safety: copies are written to `.cleaned` files and synced; the swap then renames them to `.swap`, the originals to
`.deleted`, and the copies to their own names, with the directory synced between the steps. recovery.py finishes or
undoes whatever a crash leaves.

`plan` and `swap_in` run in the log's thread and are quick; `CleanTask.run` works on files and numbers only and belongs
in a worker thread. Which log is next, how fast and with how much memory: cleaner_manager.py.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kpy.records.batch import (
    DELETE_HORIZON,
    NO_TIMESTAMP,
    BatchHeader,
    check_crc,
    iter_records,
    read_header,
    rebuild_batch,
    record_bytes,
    with_records,
)
from kpy.storage.fs import Fs
from kpy.storage.index import AbortedTxn
from kpy.storage.log import Log
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.offset_map import LOAD_FACTOR, NOTHING, OffsetMap, Staying
from kpy.storage.producer_state import parse_marker
from kpy.storage.scan import CorruptBatchError, scan_batches
from kpy.storage.segment import Segment
from kpy.storage.segment_files import CLEANED_SUFFIX, SWAP_SUFFIX

MAP_BYTES = 1 << 27
"""One round's map by default. A round stops where it is full, and the next goes on from there."""
WRITE_AT_ONCE_BYTES = 1 << 20
MAX_RELATIVE_OFFSET = 0x7FFFFFFF


@dataclass(slots=True)
class CleanStats:
    """What a round has done. `map_bytes` were read for the map, `read_bytes` for the copies."""

    map_bytes: int = 0
    map_entries: int = 0
    max_map_entries: int = 0
    read_bytes: int = 0
    read_records: int = 0
    written_bytes: int = 0
    written_records: int = 0


class CleanResult(NamedTuple):
    """What a round has prepared. The log is clean below `end_offset` once the groups are swapped in.

    A group is the base offsets of the segments that one `.cleaned` segment was made of; the first is its own too.
    """

    groups: list[list[int]]
    end_offset: int
    stats: CleanStats


class Pace(Protocol):
    """Told of bytes that have been read or written, batch by batch or run by run; there a round may be held up.

    With `others_ran` the interpreter was free meanwhile.
    """

    def __call__(self, size_bytes: int, others_ran: bool = False) -> None: ...


class LastRecord(NamedTuple):
    """Where a live producer's sequence number is kept: its last data offset, or -1 if only a marker is left."""

    offset: int
    epoch: int


@dataclass(frozen=True, slots=True)
class CleanTask:
    """One round over one log. `ratio` says how dirty it is; `is_due` whether it is to be cleaned now."""

    fs: Fs
    directory: str
    config: LogConfig
    base_offsets: list[int]
    first_dirty_offset: int
    end_offset: int
    last_records: dict[int, LastRecord]
    aborted: list[AbortedTxn]
    now_ms: int
    ratio: float
    is_due: bool
    pace: Pace
    map_bytes: int = MAP_BYTES
    map_load_factor: float = LOAD_FACTOR

    def run(self) -> CleanResult:
        """Write the `.cleaned` files. Raises CorruptBatchError, ApiError for damaged records, and OSError."""
        interval = self.config.index_interval_bytes
        segments = [Segment.attach(self.fs, self.directory, base, interval) for base in self.base_offsets]
        for segment in segments:
            # A power cut must not take the record that supersedes another, once a copy without the other is durable.
            segment.file.sync()
        offsets = OffsetMap(self.map_bytes, self.map_load_factor)
        stats = CleanStats()
        _map_dirty_part(self, segments, offsets, stats)
        stats.map_entries, stats.max_map_entries = len(offsets), offsets.max_entries
        end_offset = offsets.latest_offset + 1
        groups: list[list[int]] = []
        transactions = _Transactions(self.aborted)
        for group in _group_by_size(segments, self, end_offset):
            _copy_group(self, group, offsets, transactions, stats)
            groups.append([segment.base_offset for segment in group])
        return CleanResult(groups, end_offset, stats)


def plan(
    log: Log,
    fs: Fs,
    checkpoint: int | None,
    now_ms: int,
    pace: Pace,
    map_bytes: int = MAP_BYTES,
    map_load_factor: float = LOAD_FACTOR,
) -> CleanTask | None:
    """The next round over a compacted log; None when nothing of it can be cleaned. `checkpoint` is where the last one
    ended.

    What can be cleaned ends at the active segment, at the last stable offset, and at the first segment with records
    younger than min.compaction.lag.ms, whole segments only.
    """
    config, segments = log.config, log.segments()
    first_dirty = log.log_start_offset if checkpoint is None else checkpoint
    if not log.log_start_offset <= first_dirty <= log.log_end_offset:
        first_dirty = log.log_start_offset
    inactive = segments[:-1]
    uncleanable = min(log.last_stable_offset, segments[-1].base_offset)
    dirty = [each for each, end in _with_ends(inactive, segments[-1].base_offset) if end > first_dirty]
    if config.min_compaction_lag_ms > 0:
        newest = now_ms - config.min_compaction_lag_ms
        uncleanable = min([uncleanable, *(each.base_offset for each in dirty if each.largest_timestamp() > newest)])
    end_offset = max((each.base_offset for each in segments if each.base_offset <= uncleanable), default=0)
    cleanable = [each for each in inactive if each.base_offset < end_offset]
    dirty = [each for each in dirty if each.base_offset < end_offset]
    total_bytes = sum(each.size for each in cleanable)
    if not dirty or not total_bytes or end_offset <= first_dirty:
        return None
    ratio = sum(each.size for each in dirty) / total_bytes
    timestamps = [each.first_timestamp for each in dirty if each.first_timestamp > 0]
    is_overdue = bool(timestamps) and now_ms - min(timestamps) > config.max_compaction_lag_ms
    producers = log.producer_state.producers.values()
    return CleanTask(
        fs=fs,
        directory=str(log.dir),
        config=config,
        base_offsets=[each.base_offset for each in cleanable],
        first_dirty_offset=first_dirty,
        end_offset=end_offset,
        aborted=log.aborted_transactions(log.log_start_offset, log.log_end_offset),
        last_records={each.producer_id: LastRecord(each.last_data_offset, each.epoch) for each in producers},
        now_ms=now_ms,
        ratio=ratio,
        is_due=ratio > config.min_cleanable_dirty_ratio or is_overdue,
        pace=pace,
        map_bytes=map_bytes,
        map_load_factor=map_load_factor,
    )


def swap_in(log: Log, task: CleanTask, result: CleanResult) -> bool:
    """Put the copies in the place of the originals; False, and no trace of them, if the log has changed meanwhile, or
    is not to be compacted any more.
    """
    interval = task.config.index_interval_bytes
    bases = log.segment_base_offsets()
    is_unchanged = bases[: len(task.base_offsets)] == task.base_offsets and log.truncated_to == LONG_MAX
    is_unchanged = is_unchanged and log.config.is_compacted
    for group in result.groups:
        cleaned = Segment.attach(task.fs, task.directory, group[0], interval, CLEANED_SUFFIX)
        if not is_unchanged:
            cleaned.remove()
            continue
        cleaned.rename(SWAP_SUFFIX)
        task.fs.sync_dir(task.directory)
        log.replace_segments(cleaned, group, task.now_ms)
    if is_unchanged and result.groups:
        # The copies are synced. Recovery, for which a gap can be damage, need not look at them.
        log.recovery_point = max(log.recovery_point, result.groups[-1][-1])
    return is_unchanged


class _Transactions:
    """Which transactions on the way through the log are aborted, and which markers have lost all their data."""

    def __init__(self, aborted: list[AbortedTxn]) -> None:
        self._waiting = deque(sorted(aborted, key=lambda txn: txn.first_offset))
        self._aborted: dict[int, AbortedTxn] = {}
        self._aborted_with_data: set[int] = set()
        self._committed_with_data: set[int] = set()

    def _begin_up_to(self, offset: int) -> None:
        while self._waiting and self._waiting[0].first_offset <= offset:
            txn = self._waiting.popleft()
            self._aborted.setdefault(txn.producer_id, txn)

    def is_aborted(self, header: BatchHeader) -> bool:
        """Whether a data batch belongs to an aborted transaction and is to go."""
        self._begin_up_to(header.last_offset)
        if not header.is_transactional:
            return False
        if header.producer_id in self._aborted:
            self._aborted_with_data.add(header.producer_id)
            return True
        self._committed_with_data.add(header.producer_id)
        return False

    def ends_nothing(self, header: BatchHeader, batch: memoryview) -> tuple[bool, AbortedTxn | None]:
        """Whether a marker's transaction had no data left before this round, and the abort that must stay indexed."""
        self._begin_up_to(header.last_offset)
        marker = parse_marker(batch)
        if marker is None:
            return header.records_count == 0, None
        producer_id = header.producer_id
        if not marker.is_abort:
            had_data = producer_id in self._committed_with_data
            self._committed_with_data.discard(producer_id)
            return not had_data, None
        txn = self._aborted.pop(producer_id, None)
        had_data = producer_id in self._aborted_with_data
        self._aborted_with_data.discard(producer_id)
        return not had_data, txn if had_data else None


def _map_dirty_part(task: CleanTask, segments: list[Segment], offsets: OffsetMap, stats: CleanStats) -> None:
    """Read keys from the first dirty offset on, until the end of the round or until the map is full."""
    # The marker of a transaction that was over before is not met here, so it would never end.
    transactions = _Transactions([txn for txn in task.aborted if txn.last_offset >= task.first_dirty_offset])

    def account(size_bytes: int, others_ran: bool = False) -> None:
        task.pace(size_bytes, others_ran)
        stats.map_bytes += size_bytes

    def put_run(batches: memoryview, next_offset: int) -> tuple[int, int]:
        size_bytes, next_offset = offsets.put_run(batches, next_offset, task.first_dirty_offset)
        if size_bytes:
            account(size_bytes, others_ran=True)
            offsets.latest_offset = next_offset - 1
        return size_bytes, next_offset

    for segment, segment_end in _with_ends(segments, task.end_offset):
        if segment_end <= task.first_dirty_offset:
            continue
        position = segment.position_of(task.first_dirty_offset) or 0
        for header, batch in scan_batches(segment.file, segment.path(), position, segment.size, put_run):
            account(header.size_bytes)
            if header.is_control:
                transactions.ends_nothing(header, batch)
            elif not transactions.is_aborted(header):
                data = record_bytes(batch, header)
                refused = offsets.put(data, header.records_count, header.base_offset, task.first_dirty_offset)
                if refused is not None:
                    # One more offset at least in each round, or there would be no end of rounds.
                    offsets.latest_offset = max(offsets.latest_offset, refused - 1, task.first_dirty_offset)
                    return
            offsets.latest_offset = header.last_offset
        offsets.latest_offset = segment_end - 1


def _with_ends(segments: list[Segment], end_offset: int) -> list[tuple[Segment, int]]:
    starts = [*(segment.base_offset for segment in segments), end_offset]
    return list(zip(segments, starts[1:], strict=True))


def _group_by_size(segments: list[Segment], task: CleanTask, end_offset: int) -> list[list[Segment]]:
    """Neighbours that together fit in one segment by bytes and by offsets, up to the end of what the map covers."""
    groups: list[list[Segment]] = []
    size = 0
    for segment, segment_end in _with_ends(segments, task.end_offset):
        if segment.base_offset >= end_offset:
            break
        fits = (
            groups
            and size + segment.size <= task.config.segment_bytes
            and segment_end - 1 - groups[-1][0].base_offset <= MAX_RELATIVE_OFFSET
        )
        if fits:
            groups[-1].append(segment)
            size += segment.size
        else:
            groups.append([segment])
            size = segment.size
    return groups


class _Copy:
    """A `.cleaned` segment that is being written."""

    def __init__(self, task: CleanTask, base_offset: int, stats: CleanStats) -> None:
        interval = task.config.index_interval_bytes
        self.segment = Segment.create(task.fs, task.directory, base_offset, interval, CLEANED_SUFFIX)
        self._task = task
        self._stats = stats
        self._unwritten: list[bytes | memoryview] = []
        self._unwritten_bytes = 0

    def has_read(self, size_bytes: int, records: int, others_ran: bool = False) -> None:
        self._task.pace(size_bytes, others_ran)
        self._stats.read_bytes += size_bytes
        self._stats.read_records += records

    def add(self, data: bytes | memoryview, records: int, stretches: list[tuple[int, int, int, int]]) -> None:
        """Batches that stay; for `stretches` see Kept."""
        for size, last_offset, max_timestamp, its_offset in stretches:
            self.segment.index_append(self.segment.size, size, last_offset, max_timestamp, its_offset)
            self.segment.size += size
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        self._stats.written_records += records
        if self._unwritten_bytes >= WRITE_AT_ONCE_BYTES:
            self.write()

    def write(self) -> None:
        data = self._unwritten[0] if len(self._unwritten) == 1 else b"".join(self._unwritten)
        self._task.pace(len(data))
        self.segment.file.write(data, self.segment.size - len(data))
        self._stats.written_bytes += len(data)
        self._unwritten.clear()
        self._unwritten_bytes = 0


def _copy_group(
    task: CleanTask, group: list[Segment], offsets: OffsetMap, transactions: _Transactions, stats: CleanStats
) -> None:
    """Write what stays of the group to one `.cleaned` segment, durably."""
    copy = _Copy(task, group[0].base_offset, stats)
    stops = _last_offsets_that_may_stay_empty(task)

    def keep_run(batches: memoryview, next_offset: int) -> tuple[int, int]:
        stop = bisect_left(stops, next_offset)
        until_offset = stops[stop] if stop < len(stops) else LONG_MAX
        kept = offsets.keep_run(batches, next_offset, until_offset, task.now_ms, task.config.index_interval_bytes)
        if kept.size_bytes:
            copy.has_read(kept.size_bytes, kept.read_records, others_ran=True)
            if kept.data:
                copy.add(kept.data, kept.kept_records, kept.stretches)
        return kept.size_bytes, kept.next_offset

    for segment in group:
        for header, batch in scan_batches(segment.file, segment.path(), 0, segment.size, keep_run):
            copy.has_read(header.size_bytes, header.records_count)
            if not check_crc(batch):
                raise CorruptBatchError(segment.path(), segment.position_of(header.base_offset) or 0, "bad CRC")
            kept, aborted = _filter_batch(task, header, batch, offsets, transactions)
            if aborted is not None:
                copy.segment.txn_index.append(aborted)
            if kept is not None:
                kept_header = read_header(kept)
                last_offset = kept_header.last_offset
                stretch = kept_header.size_bytes, last_offset, kept_header.max_timestamp, last_offset
                copy.add(kept, kept_header.records_count, [stretch])
    copy.write()
    cleaned = copy.segment
    cleaned.become_inactive()
    cleaned.flush()
    task.fs.set_modified_ms(cleaned.path(), task.fs.modified_ms(group[-1].path()))


def _filter_batch(
    task: CleanTask, header: BatchHeader, batch: memoryview, offsets: OffsetMap, transactions: _Transactions
) -> tuple[bytes | memoryview | None, AbortedTxn | None]:
    """What stays of a batch: all of it, a copy with fewer records, its empty header, or nothing."""
    aborted: AbortedTxn | None = None
    if header.is_control:
        is_over, aborted = transactions.ends_nothing(header, batch)
        drops_all = is_over and header.has_delete_horizon and header.base_timestamp <= task.now_ms
        needs_horizon = is_over
    else:
        drops_all = transactions.is_aborted(header)
        needs_horizon = False
    staying = NOTHING if drops_all else _staying(task, header, batch, offsets)
    if not staying.records_count:
        emptied = header._replace(attributes=header.attributes & ~DELETE_HORIZON, base_timestamp=-1)
        return rebuild_batch(emptied, []) if _must_stay(task, header) else None, aborted
    needs_horizon = needs_horizon or not staying.have_values
    if header.has_delete_horizon or not needs_horizon:
        if staying.records_count == header.records_count:
            return batch, aborted
        needs_horizon = False
    if not header.is_log_append_time:
        newest = header.base_timestamp + staying.newest_timestamp_delta
        header = header._replace(max_timestamp=max(NO_TIMESTAMP, min(newest, header.max_timestamp)))
    rebuilt = with_records(header, staying.records_count, staying.data)
    if needs_horizon:
        records = list(iter_records(memoryview(rebuilt)))
        horizon_ms = task.now_ms + task.config.delete_retention_ms
        header = header._replace(attributes=header.attributes | DELETE_HORIZON, base_timestamp=horizon_ms)
        rebuilt = rebuild_batch(header, records)
    return rebuilt, aborted


def _staying(task: CleanTask, header: BatchHeader, batch: memoryview, offsets: OffsetMap) -> Staying:
    horizon_passed = header.has_delete_horizon and header.base_timestamp <= task.now_ms
    latest_offset = -1 if header.is_control else offsets.latest_offset
    data = record_bytes(batch, header)
    return offsets.staying(data, header.records_count, header.base_offset, latest_offset, horizon_passed)


def _last_offsets_that_may_stay_empty(task: CleanTask) -> list[int]:
    """In order: where the data batches end that `_must_stay` is right about."""
    lasts = {last.offset for last in task.last_records.values() if last.offset >= 0}
    return sorted(lasts | {task.end_offset - 1})


def _must_stay(task: CleanTask, header: BatchHeader) -> bool:
    """Whether a batch stays even empty: for its producer's sequence number, or because it ends the round."""
    if header.last_offset + 1 == task.end_offset:
        return True
    last = task.last_records.get(header.producer_id)
    if last is None:
        return False
    if last.offset >= 0:
        return header.last_offset == last.offset
    return header.is_control and header.producer_epoch == last.epoch
