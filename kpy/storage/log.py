"""One partition on disk: record batches in segments, added to at the end (Kafka classes UnifiedLog and LocalLog).

The appender stamps base offset and leader epoch into the batch's header, which its CRC does not cover, and hands stamp
and rest to one pwritev: records are neither copied nor looked at. Everything derived (indexes, producer state) changes
after the write, so a failed write leaves the log as it was. A disk error takes the whole directory offline for good.

A Log belongs to one thread. Only a `FlushJob` and the planning of a compaction may run in another one.
"""

import os
import random
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple, NoReturn

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.records.batch import BatchHeader, read_header
from kpy.records.validate import ValidBatch
from kpy.storage.checkpoints import PARTITION_METADATA, TopicPartition, write_topic_id
from kpy.storage.disk_guard import DiskGuard
from kpy.storage.flush import FlushJob, Unsynced
from kpy.storage.fs import Buffer, FileRegion, Fs
from kpy.storage.index import MAX_RELATIVE_OFFSET, AbortedTxn
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.preallocation import preallocate
from kpy.storage.producer_state import ProducedBatch, parse_marker
from kpy.storage.recovery import LoadedLog, account, replay_producers
from kpy.storage.retention import LogBounds, expired_count
from kpy.storage.scan import CorruptBatchError
from kpy.storage.segment import Segment
from kpy.storage.segment_files import DELETED_SUFFIX
from kpy.storage.timestamps import TimestampOffset, first_at_or_after, with_max_timestamp

_STAMP = Struct(">qii")


class AppendInfo(NamedTuple):
    """Where a batch is in the log. `log_append_time_ms` is -1 for CreateTime, and a repetition's own timestamp."""

    base_offset: int
    last_offset: int
    log_append_time_ms: int
    log_start_offset: int
    is_duplicate: bool


class Log:
    """The log of `topic`-`partition` in the directory `dir`."""

    def __init__(
        self,
        directory: str,
        topic_partition: TopicPartition,
        topic_id: bytes,
        config: LogConfig,
        loaded: LoadedLog,
        *,
        fs: Fs,
        rng: random.Random,
        on_disk_error: Callable[[OSError], None],
    ) -> None:
        self._fs = fs
        self._directory = directory
        self.data_dir = sys.intern(os.path.dirname(directory))  # One text for all logs in it.
        self.topic, self.partition = topic_partition
        self.topic_id = topic_id
        self.config = config
        self.is_offline = False
        self.leader_epochs = loaded.leader_epochs
        self.producer_state = loaded.producer_state
        self.log_start_offset, self.log_end_offset = loaded.log_start_offset, loaded.log_end_offset
        self.recovery_point = self.flushed_offset = loaded.recovery_point
        self.flushed_ms = 0
        self.truncated_to = LONG_MAX
        """The lowest offset of any truncation since compaction was last planned, which counts on what is below."""
        self._high_watermark = loaded.log_start_offset
        self._segments = loaded.segments
        self._bases = [segment.base_offset for segment in loaded.segments]
        self._active = loaded.segments[-1]
        self._snapshots = loaded.snapshots
        self._rng = rng
        self.disk = DiskGuard(topic_partition, on_disk_error)
        self._unsynced = Unsynced()
        if topic_id != ZERO_ID:
            self._unsynced.note_metadata()
        self._deleted: tuple[tuple[int, list[str]], ...] = ()
        self._roll_jitter_ms = self._new_jitter()

    @property
    def dir(self) -> Path:
        return Path(self._directory)

    @property
    def must_flush(self) -> bool:
        """Whether flush.messages records wait to be made durable: then nothing more is acknowledged before they are."""
        return self.log_end_offset - self.flushed_offset >= self.config.flush_messages

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    @property
    def high_watermark(self) -> int:
        return self._high_watermark

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        # Without max() and min(), which cost three times as much, because every append comes by here.
        start, end = self.log_start_offset, self.log_end_offset
        offset = end if offset > end else start if offset < start else offset
        self._high_watermark = offset
        self.producer_state.high_watermark_moved(offset)

    @property
    def last_stable_offset(self) -> int:
        """Below it every transaction is decided: what read_committed consumers may read up to."""
        unstable = self.producer_state.first_unstable_offset()
        return self._high_watermark if unstable is None else min(unstable, self._high_watermark)

    def assign_topic_id(self, topic_id: bytes) -> None:
        """Give an id to a log that has none: its partition.metadata was lost, or it is older than topic ids."""
        with self.disk:
            write_topic_id(self._fs, f"{self._directory}/{PARTITION_METADATA}", topic_id)
        self.topic_id = topic_id
        self._unsynced.note_metadata()

    def start_leader_epoch(self, epoch: int) -> None:
        """Note that a new leader begins at the log end, even if it never appends. ApiError KAFKA_STORAGE_ERROR."""
        with self.disk:
            self.leader_epochs.begin(epoch, self.log_end_offset)

    def segments(self) -> list[Segment]:
        return self._segments.copy()

    def segment_base_offsets(self) -> list[int]:
        return list(self._bases)

    # Appending.

    def append_as_leader(self, batch: ValidBatch, leader_epoch: int, now_ms: int) -> AppendInfo:
        """Give the batch the next offsets and write it. Nothing refers to `batch.data` afterwards.

        Raises ApiError OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE,
        TRANSACTION_COORDINATOR_FENCED, or KAFKA_STORAGE_ERROR when the disk fails.
        """
        if self.is_offline:
            self._refuse()
        header, data, log_append_time_ms = batch
        has_producer = header.producer_id >= 0
        if has_producer:
            repeated = self._check_producer(header, data)
            if repeated is not None:
                first, last = repeated.first_offset, repeated.last_offset
                return AppendInfo(first, last, repeated.timestamp, self.log_start_offset, True)
        base_offset = self.log_end_offset
        last_offset = base_offset + header.last_offset_delta
        buffers: list[Buffer] = [_STAMP.pack(base_offset, header.batch_length, leader_epoch), data[_STAMP.size :]]
        self._write(
            buffers,
            len(data),
            base_offset=base_offset,
            last_offset=last_offset,
            max_timestamp=header.max_timestamp,
            leader_epoch=leader_epoch,
            now_ms=now_ms,
        )
        if has_producer:
            self._account(header, data, base_offset)
        return AppendInfo(base_offset, last_offset, log_append_time_ms, self.log_start_offset, False)

    def _check_producer(self, header: BatchHeader, data: memoryview) -> ProducedBatch | None:
        if not header.is_control:
            return self.producer_state.check(header)
        marker = parse_marker(data)
        if marker is not None:
            self.producer_state.check_marker(header, marker)
        return None

    def append_as_follower(self, records: memoryview, now_ms: int) -> None:
        """Write the leader's batches as they are, offsets and epochs included. `records` holds whole, checked batches.

        Raises ApiError OFFSET_OUT_OF_RANGE when a batch does not follow the log end, KAFKA_STORAGE_ERROR when the disk
        fails.
        """
        if self.is_offline:
            self._refuse()
        position = 0
        while position < len(records):
            header = read_header(records, position)
            base_offset, last_offset = header.base_offset, header.last_offset
            if base_offset < self.log_end_offset:
                message = f"Offset {base_offset} in an append is less than the next offset {self.log_end_offset}"
                raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE, message)
            batch = records[position : position + header.size_bytes]
            self._write(
                [batch],
                len(batch),
                base_offset=base_offset,
                last_offset=last_offset,
                max_timestamp=header.max_timestamp,
                leader_epoch=header.partition_leader_epoch,
                now_ms=now_ms,
            )
            if header.producer_id >= 0:
                self._account(header, batch, base_offset)
            position += len(batch)

    def _write(
        self,
        buffers: Sequence[Buffer],
        size: int,
        *,
        base_offset: int,
        last_offset: int,
        max_timestamp: int,
        leader_epoch: int,
        now_ms: int,
    ) -> None:
        config, segment = self.config, self._active
        try:
            if segment.size and (
                segment.size + size > config.segment_bytes
                or segment.waited_for_roll_ms(now_ms, max_timestamp) > config.roll_ms - self._roll_jitter_ms
                or last_offset - segment.base_offset > MAX_RELATIVE_OFFSET
                or segment.is_index_full(config.segment_index_bytes)
            ):
                segment = self._roll(base_offset)
            if leader_epoch > self.leader_epochs.saved_epoch:
                self.leader_epochs.assign(leader_epoch, base_offset)
            segment.append(buffers, size, last_offset, max_timestamp)
            self.log_end_offset = last_offset + 1
        except (OSError, CorruptBatchError) as error:
            self.disk.fail(error)

    def _account(self, header: BatchHeader, batch: memoryview, base_offset: int) -> None:
        with self.disk:
            account(self.producer_state, header, batch, base_offset, self._active)

    def _refuse(self) -> NoReturn:
        raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR, f"The log directory of {self.topic}-{self.partition} is offline")

    # Reading.

    def read(self, offset: int, max_bytes: int, max_offset: int, min_one_batch: bool) -> FileRegion | None:
        """Whole batches from the one that holds `offset` on, all below `max_offset` (exclusive), from one segment.

        At most `max_bytes`, but with `min_one_batch` at least the first batch. None when there is nothing below
        `max_offset` or the first batch does not fit. Raises ApiError OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE for a damaged
        segment, and KAFKA_STORAGE_ERROR.
        """
        end_offset = self.log_end_offset
        if not self.log_start_offset <= offset <= end_offset:
            bounds = f"{self.log_start_offset}..{end_offset} of {self.topic}-{self.partition}"
            raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE, f"Offset {offset} is outside {bounds}")
        if self.is_offline:
            self._refuse()
        if offset >= max_offset or offset == end_offset:
            return None
        try:
            active = self._active
            if offset >= active.base_offset:
                return active.read(offset, max_bytes, max_offset, end_offset, min_one_batch)
            for segment, segment_end in self.segments_from(offset):
                region = segment.read(offset, max_bytes, max_offset, segment_end, min_one_batch)
                if region is not None or segment_end >= max_offset or segment.position_of(offset) is not None:
                    return region
        except (OSError, CorruptBatchError) as error:
            self.disk.fail(error)
        return None

    def ends_in_later_segment(self, offset: int, end_offset: int) -> bool:
        """Whether `end_offset` (exclusive) lies in a later segment than `offset`: no `read` from there comes to it."""
        return offset < self._bases[bisect_right(self._bases, end_offset) - 1]

    def segments_from(self, offset: int) -> Iterator[tuple[Segment, int]]:
        """The segments from the one that holds `offset` on, each with the offset where it ends."""
        slot = max(0, bisect_right(self._bases, offset) - 1)
        return zip(self._segments[slot:], [*self._bases[slot + 1 :], self.log_end_offset], strict=True)

    def read_batches(self, start_offset: int, end_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        """Each batch with records in [start_offset, end_offset), for replay, CRC unchecked. Raises as `read` does."""
        with self.disk:
            for segment, segment_end in self.segments_from(start_offset):
                if segment.base_offset >= end_offset or segment_end <= start_offset:
                    continue
                if (position := segment.position_of(start_offset)) is None:
                    continue
                for header, batch in segment.batches(position):
                    if header.base_offset >= end_offset:
                        return
                    yield header, batch

    def aborted_transactions(self, start_offset: int, end_offset: int) -> list[AbortedTxn]:
        """The aborted transactions that overlap [start_offset, end_offset): what a read_committed answer must name."""
        found: list[AbortedTxn] = []
        with self.disk:
            for segment, _ in self.segments_from(start_offset):
                for txn in segment.txn_index.read():
                    if txn.last_offset >= start_offset and txn.first_offset < end_offset:
                        found.append(txn)
                    if txn.last_stable_offset >= end_offset:
                        return found
        return found

    def offset_for_timestamp(self, timestamp_ms: int) -> TimestampOffset | None:
        """The first record at or after the log start whose timestamp is at or after `timestamp_ms`."""
        with self.disk:
            return first_at_or_after(self._segments, timestamp_ms, self.log_start_offset)

    def max_timestamp(self) -> TimestampOffset | None:
        """The first record that has the largest timestamp (KIP-734); None for a log without timestamps."""
        with self.disk:
            return with_max_timestamp(self._segments)

    # Segments come and go.
    def roll(self) -> None:
        """Begin a new segment at the log end, unless the active one is empty."""
        with self.disk:
            if self._active.size:
                self._roll(self.log_end_offset)

    def _roll(self, base_offset: int) -> Segment:
        self._active.become_inactive()
        if self.recovery_point >= base_offset:
            # No flush comes by this segment again, and recovery trusts it: its indexes must be durable now.
            self._active.flush()
            self._fs.sync_dir(self._directory)
        self._snapshots.take(base_offset, self.producer_state)
        self._snapshots.keep_only(self._bases)
        segment = self._new_segment(base_offset)
        self._segments.append(segment)
        self._bases.append(base_offset)
        self._active, self._roll_jitter_ms = segment, self._new_jitter()
        self._unsynced.note_names()
        return segment

    def _new_segment(self, base_offset: int) -> Segment:
        segment = Segment.create(self._fs, self._directory, base_offset, self.config.index_interval_bytes)
        preallocate(self._fs, segment.file, segment.path(), self.config.preallocated_bytes)
        return segment

    def _new_jitter(self) -> int:
        """A delay that keeps the segments of many partitions from rolling at once."""
        limit = min(self.config.segment_jitter_ms, self.config.roll_ms)
        return self._rng.randrange(limit) if limit else 0

    def delete_old_segments(self, now_ms: int) -> list[str]:
        """Apply retention: rename files to .deleted, for `take_due_files` to give out later; the new paths."""
        with self.disk:
            bounds = LogBounds(self.log_start_offset, self._high_watermark, self.log_end_offset)
            count = expired_count(self._segments, self.config, bounds, now_ms)
            if not count:
                return []
            if count == len(self._segments):
                self._roll(self.log_end_offset)
            paths = [path for segment in self._segments[:count] for path in segment.rename(DELETED_SUFFIX)]
            self._deleted += ((now_ms + self.config.file_delete_delay_ms, paths),)
            del self._segments[:count], self._bases[:count]
            self._snapshots.keep_only(self._bases)
            self._move_log_start(max(self.log_start_offset, self._bases[0]))
            self._unsynced.note_names()
            return paths

    def replace_segments(self, cleaned: Segment, original_bases: list[int], now_ms: int) -> None:
        """Put a compacted segment, which bears the .swap suffix, in the place of the neighbours it was made of."""
        slot = self._bases.index(original_bases[0])
        originals = self._segments[slot : slot + len(original_bases)]
        with self.disk:
            paths = [path for segment in originals for path in segment.rename(DELETED_SUFFIX)]
            self._fs.sync_dir(self._directory)
            cleaned.rename("")
            self._fs.sync_dir(self._directory)
        self._deleted += ((now_ms + self.config.file_delete_delay_ms, paths),)
        self._segments[slot : slot + len(originals)] = [cleaned]
        self._bases[slot : slot + len(originals)] = [cleaned.base_offset]

    def take_due_files(self, now_ms: int) -> list[str]:
        """The files that were renamed to .deleted at least file.delete.delay.ms ago: the caller removes them."""
        due = [path for due_ms, paths in self._deleted if due_ms <= now_ms for path in paths]
        self._deleted = tuple(each for each in self._deleted if each[0] > now_ms)
        return due

    def advance_log_start_offset(self, offset: int) -> None:
        """Hide the records below `offset` (KIP-107). ApiError OFFSET_OUT_OF_RANGE above the high watermark."""
        if offset > self._high_watermark:
            raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE, f"{offset} is beyond the high watermark")
        if offset > self.log_start_offset:
            with self.disk:
                self._move_log_start(offset)

    def _move_log_start(self, offset: int) -> None:
        self.log_start_offset = offset
        self.leader_epochs.truncate_from_start(offset)
        self.recovery_point = max(self.recovery_point, self._bases[0])
        self.flushed_offset = max(self.flushed_offset, self._bases[0])

    def truncate_to(self, offset: int) -> None:
        """Drop every batch that has records at or above `offset`: the log ends there, or where such a batch began.

        A leader epoch that begins at its end goes too: this broker wrote nothing in it, and nobody else may know of it.
        """
        if offset >= self.log_end_offset:
            with self.disk:
                self.leader_epochs.truncate_from_end(self.log_end_offset)
            return
        if offset < self._bases[0]:
            self.truncate_fully_and_start_at(offset)
            return
        with self.disk:
            keep = bisect_right(self._bases, offset)
            for segment in reversed(self._segments[keep:]):
                segment.remove()
            self._fs.sync_dir(self._directory)  # They must not come back behind what is appended next.
            del self._segments[keep:], self._bases[keep:]
            self._active = self._segments[-1]
            offset = self._active.truncate_to(offset)
            self.truncated_to = min(self.truncated_to, offset)
            self.log_end_offset = offset
            self.recovery_point = min(self.recovery_point, offset)
            self.flushed_offset = min(self.flushed_offset, offset)
            self.log_start_offset = min(self.log_start_offset, offset)
            self.high_watermark = self._high_watermark
            self.leader_epochs.truncate_from_end(offset)
            self._snapshots.remove_from(offset + 1)
            self._snapshots.load_newest(self.producer_state, self.log_start_offset, offset)
            replay_producers(self.producer_state, self._segments, offset)

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop everything; the log begins anew at `offset`."""
        self.truncated_to = min(self.truncated_to, offset)
        with self.disk:
            for segment in self._segments:
                segment.remove()
            self._snapshots.remove_from(0)
            segment = self._new_segment(offset)
            self._segments[:], self._bases[:], self._active = [segment], [offset], segment
            self.log_start_offset = self.log_end_offset = self.recovery_point = self.flushed_offset = offset
            self.high_watermark = offset
            self.leader_epochs.clear()
            self.producer_state.clear(offset)
            self._unsynced.note_names()

    # Durability and the end.

    def flush_job(self, include_active: bool) -> FlushJob | None:
        """What must be synced to make the log durable, with or without its active segment; None if nothing must."""
        end_offset = self.log_end_offset if include_active else self._active.base_offset
        if end_offset <= self.recovery_point:
            return None
        found = [segment for segment, _ in self.segments_from(self.recovery_point)]
        segments = found if include_active else found[:-1]
        return self._unsynced.job(
            self._fs,
            self._directory,
            segments,
            self.leader_epochs,
            end_offset,
            include_active,
            is_gone=lambda: self.is_offline,
        )

    def flushed(self, job: FlushJob) -> None:
        """The job has run: what it was about is on disk, and recovery need not look at most of it."""
        self.flushed_offset = max(self.flushed_offset, min(job.end_offset, self.log_end_offset))
        self.recovery_point = max(self.recovery_point, min(job.durable_end(self._active), self.log_end_offset))
        self._unsynced.synced(job)

    def flush(self) -> None:
        """Make every record durable, in this thread."""
        job = self.flush_job(include_active=True)
        if job is not None:
            with self.disk:
                job.run()
            self.flushed(job)

    def drop_idle_files(self) -> None:
        """Close the descriptors of the segments that nobody has used since the last call."""
        for segment in self._segments:
            segment.drop_idle_file()

    def close(self) -> None:
        """Flush, complete the indexes and leave a producer snapshot, so that the next start need not scan."""
        self.flush()
        with self.disk:
            self._active.close()
            self._snapshots.take(self.log_end_offset, self.producer_state)
            self._snapshots.keep_only(self._bases)

    def moved_to(self, directory: str) -> None:
        """The directory has another name now, on the same disk; open descriptors stay good."""
        self._unsynced.moved()
        self._directory, self.data_dir = directory, sys.intern(os.path.dirname(directory))
        self.leader_epochs.moved_to(directory)
        self._snapshots.moved_to(directory)
        for segment in self._segments:
            segment.moved_to(directory, "")
