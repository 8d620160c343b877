"""Reading the segments of one log from end to end: CRCs, offsets, and what is derived from them.

Nothing is looked at but headers, CRCs and the few control records, so a check is as fast as the disk. Behind bytes that
are no batch the walk goes on at the next sound one, so that all damage is found and its extent is told.

Base offsets lie outside the CRC. They must rise; of two that contradict one another, the one is to blame that does not
follow its predecessor. A gap that nothing contradicts is compaction's doing, or a batch is missing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from kpy.errors import ApiError
from kpy.records.batch import LOG_OVERHEAD, NO_PRODUCER_ID, NO_TIMESTAMP
from kpy.records.compression import CODEC_MASK, Codec
from kpy.storage.epoch_check import EpochCheck
from kpy.storage.findings import Finding, Severity
from kpy.storage.fs import Fs
from kpy.storage.index_check import IndexFault, OffsetIndexCheck, TimeIndexCheck
from kpy.storage.producer_check import ProducerCheck
from kpy.storage.scan import (
    CheckedBatch,
    CorruptBatchError,
    find_sound_batch,
    header_at,
    magic_of_message,
    scan_checked,
)
from kpy.storage.segment import Segment
from kpy.storage.segment_files import OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX

PROGRESS_BYTES = 8 << 20
"""How often the progress of a walk is told."""

_REFUSED = "consumers are answered CORRUPT_MESSAGE, or refuse it by its CRC"
_CUT = "the next start ends the log here, with all that follows"
_MISPLACED = "kpy answers consumers CORRUPT_MESSAGE, Apache Kafka gives them records under wrong offsets"
_INDEX_REBUILT = "it is rebuilt when it is first used"


class WalkOptions(NamedTuple):
    """What a walk must know beside the files."""

    is_live: bool
    """A broker is writing: the last segment may end in half a batch, and its indexes are behind."""
    is_clean: bool
    """A clean shutdown says that the indexes of the last segment are complete."""
    recovered_from: int
    """The base offset of the first segment that the next start reads, to cut the log at the first damage."""
    index_interval_bytes: int
    on_progress: Callable[[int], None]
    """Told now and then how many bytes have been read since the last call."""


_Indexes = tuple[OffsetIndexCheck, TimeIndexCheck]


class Gap(NamedTuple):
    """Offsets without a batch, in front of the one at `position`."""

    path: str
    position: int
    first_offset: int
    end_offset: int


class SegmentWalk:
    """Walks over the segments of one log, in order; `epochs` and `producers` come along."""

    def __init__(self, fs: Fs, directory: str, start_offset: int, options: WalkOptions, names: list[str]) -> None:
        self._fs = fs
        self._directory = directory
        self._options = options
        self.epochs = EpochCheck(fs, directory)
        self.producers = ProducerCheck(fs, directory, names, start_offset)
        self.next_offset = start_offset
        self.batches = 0
        self.records = 0
        self.size_bytes = 0
        self.gaps = 0
        self.first_gap: Gap | None = None
        self.is_damaged = False
        """Whether anything was wrong with the batches up to here."""
        self._is_lost = False
        """Whether damage makes it uncertain which offset comes next."""
        self._max_timestamp = NO_TIMESTAMP
        self._told = 0
        """Up to which position of the segment progress has been told."""

    def walk(self, base_offset: int, limit: int | None) -> Iterator[Finding]:
        """One segment. `limit` is the base offset of the next one, None for the last."""
        options = self._options
        segment = Segment.attach(self._fs, self._directory, base_offset, options.index_interval_bytes)
        path, size = segment.path(), segment.size
        offsets = OffsetIndexCheck(self._fs, segment.path(OFFSET_INDEX_SUFFIX), base_offset)
        times = TimeIndexCheck(self._fs, segment.path(TIME_INDEX_SUFFIX), base_offset)
        was_damaged, self.is_damaged = self.is_damaged, False
        self._max_timestamp = NO_TIMESTAMP
        position = 0
        while position < size:
            problem = ""
            try:
                for checked in scan_checked(segment.file, path, position, size):
                    position = checked.position + LOG_OVERHEAD + checked.header.batch_length
                    yield from self._meet(checked, segment, limit, (offsets, times))
            except CorruptBatchError as error:
                problem = str(error).removeprefix(f"{path} at position {position}: ")
            if position < size:
                position, finding = self._behind_damage(segment, position, problem, is_last=limit is None)
                yield finding
        options.on_progress(size - self._told)
        self._told = 0
        self.size_bytes += size
        yield from self._end_segment(path, limit)
        yield from self._indexes(segment, offsets, times, is_last=limit is None)
        self.is_damaged = self.is_damaged or was_damaged
        yield from self.producers.finish_segment(segment.txn_index, self.is_damaged)

    # Batches.

    def _meet(
        self,
        checked: CheckedBatch,
        segment: Segment,
        limit: int | None,
        indexes: tuple[OffsetIndexCheck, TimeIndexCheck],
    ) -> Iterator[Finding]:
        position, header, is_crc_right, data = checked
        path, (offsets, times) = segment.path(), indexes
        base_offset, last_offset = header.base_offset, header.last_offset
        self.batches += 1
        if position - self._told >= PROGRESS_BYTES:
            self._options.on_progress(position - self._told)
            self._told = position
        if not is_crc_right:
            yield self._damage(path, position, f"the batch at offset {base_offset} does not match its CRC", _REFUSED)
            self.next_offset, self._is_lost = max(self.next_offset, base_offset + 1), True
            return
        if base_offset != self.next_offset:
            finding = self._judge_offset(checked, segment, limit)
            if finding is not None:
                yield finding
                # It takes the place that it should have said.
                self.next_offset += header.last_offset_delta + 1
                return
        codec, count = header.attributes & CODEC_MASK, header.records_count
        if not 0 <= count <= header.last_offset_delta + 1 or codec >= len(Codec):
            what = f"the batch at offset {base_offset} has {count} records up to offset {last_offset}, in codec {codec}"
            yield self._damage(path, position, what, _REFUSED)
        self.records += header.records_count
        self.epochs.meet(header, path, position)
        self._max_timestamp = max(self._max_timestamp, header.max_timestamp)
        if position >= offsets.due_position or last_offset >= offsets.due_offset:
            offsets.meet(position, header)
        while last_offset >= times.due_offset:
            times.meet(header, self._max_timestamp)
        if base_offset >= self.producers.due_offset:
            yield from self.producers.pass_snapshots(base_offset, self.is_damaged)
        if header.producer_id != NO_PRODUCER_ID:
            try:
                self.producers.meet(header, data)
            except ApiError as error:
                yield self._damage(path, position, f"the control batch at offset {base_offset}: {error}", _REFUSED)
        self.next_offset, self._is_lost = last_offset + 1, False

    def _judge_offset(self, checked: CheckedBatch, segment: Segment, limit: int | None) -> Finding | None:
        """What is wrong with the offset of a batch that does not begin at the next one; else it leaves a gap."""
        position, header, *_ = checked
        base_offset, behind = header.base_offset, position + header.size_bytes
        following = header_at(segment.file, behind, segment.size)
        above = limit if following is None else following.base_offset
        if base_offset < self.next_offset:
            why = f"the batches before it end at {self.next_offset - 1}"
        elif not segment.can_hold(header.last_offset):
            why = "it is more than 2^31 above the first one"
        elif above is not None and header.last_offset >= above and (following is None or above >= self.next_offset):
            why = f"the next {'segment' if following is None else 'batch'} begins at offset {above}"
        else:
            if not self._is_lost:
                self.gaps += 1
                self.first_gap = self.first_gap or Gap(segment.path(), position, self.next_offset, base_offset)
                self.producers.has_gaps = True
            return None
        return self._damage(segment.path(), position, f"the base offset {base_offset} cannot be: {why}", _MISPLACED)

    def _end_segment(self, path: str, limit: int | None) -> Iterator[Finding]:
        if limit is not None and self.next_offset > limit and not self._is_lost:
            what = f"offsets reach {self.next_offset - 1}, but the next segment begins at {limit}"
            yield self._damage(path, None, what, _MISPLACED)
            self.next_offset = limit

    # Damage.

    def _behind_damage(self, segment: Segment, position: int, problem: str, is_last: bool) -> tuple[int, Finding]:
        """Where to go on behind bytes that are no whole batch, and what to say of them."""
        path, size = segment.path(), segment.size
        rest = f"{size - position:,} bytes"
        magic = magic_of_message(segment.file, position, size)
        if magic is not None:
            self.is_damaged = self._is_lost = True
            what = f"holds messages of magic {magic}"
            return size, Finding(
                Severity.ERROR, path, position, what, "kpy does not start on it; Apache Kafka reads it"
            )
        found = find_sound_batch(segment.file, path, position + 1, size, self.next_offset)
        if found is not None:
            what = problem or f"the batch here would reach beyond the end, {rest} from here"
            what += f"; the next sound batch is at byte {found.position}, with offset {found.header.base_offset}"
            finding = self._damage(path, position, what, _REFUSED)
            self._is_lost = True
            return found.position, finding
        if is_last and self._options.is_live and not problem:
            return size, Finding(Severity.NOTE, path, position, f"{rest} of a batch that the broker is writing")
        what = (
            f"{problem}, nor any sound one in the {rest} from here on" if problem else f"{rest} of an incomplete batch"
        )
        return size, self._damage(path, position, what, _CUT if is_last else "consumers are answered CORRUPT_MESSAGE")

    def _damage(self, path: str, position: int | None, what: str, outcome: str) -> Finding:
        self.is_damaged = True
        if self.next_offset >= self._options.recovered_from:
            outcome = _CUT
        return Finding(Severity.ERROR, path, position, what, outcome)

    # Indexes.

    def _indexes(
        self, segment: Segment, offsets: OffsetIndexCheck, times: TimeIndexCheck, *, is_last: bool
    ) -> Iterator[Finding]:
        """What is wrong with the indexes; of a damaged log, only what they themselves show."""
        is_growing = is_last and not self._options.is_clean
        if not self.is_damaged:
            offsets.finish()
            times.finish(self._max_timestamp, is_complete=not is_growing and segment.size > 0)
            if offsets.inexact_slot is not None and offsets.fault is None and not self.gaps:
                offsets.fault = IndexFault(offsets.inexact_slot, "has an offset that is not the last one of its batch")
        repair = None if self.is_damaged else partial(_rebuild_indexes, segment)
        for index in (offsets, times):
            fault = index.fault
            if fault is not None and not (self.is_damaged and fault.position):
                position = None if fault.what == "is missing" else fault.position
                outcome = "the next start reads the segment and rebuilds it" if is_growing else _INDEX_REBUILT
                yield Finding(Severity.WARNING, index.path, position, fault.what, outcome, repair)
            elif index.padding_position is not None:
                what = "ends with zeros, as the indexes of a running Apache Kafka do"
                severity = Severity.NOTE if is_growing else Severity.WARNING
                outcome = "rebuilt by the next start" if is_growing else "lookups are misled"
                yield Finding(severity, index.path, index.padding_position, what, outcome, repair)


def _rebuild_indexes(segment: Segment) -> str:
    segment.rebuild_indexes(keep_in_memory=False)
    return "rebuilt from the log, as its twin was"
