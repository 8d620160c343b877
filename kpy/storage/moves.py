"""A log on its way into another data directory (KIP-113, Kafka's ReplicaAlterLogDirsThread).

The copy lies in `topic-P.<hex>-future` in the target. It is filled slice by slice in a worker thread, from wherever it
ends, while appends to the log go on; so a move that was interrupted goes on where it stood. When it has caught up, it
is made durable, what has come meanwhile is copied in the logs' thread, and the two change places before anything else
can be appended: the copy is renamed to the log's name first, and then the log to `-delete`. A crash between the two
leaves two logs of that name, of which the next start keeps the longer one (LogDirs).

What was durable in the log is durable in the copy before it takes the log's place. Apache Kafka leaves that to the
kernel.
"""

import logging
from collections.abc import Callable
from functools import partial

from kpy.errors import ApiError, ErrorCode
from kpy.ids import ZERO_ID
from kpy.records.batch import check_crc, iter_batches
from kpy.storage.checkpoints import PARTITION_METADATA, TopicPartition
from kpy.storage.disk_job import DiskJob
from kpy.storage.fs import File, FileRegion, Fs
from kpy.storage.log import Log
from kpy.storage.log_directory import LogDirectory
from kpy.storage.scan import CorruptBatchError

LAST_BYTES = 1 << 18
MAX_LAST_BYTES = 1 << 25
"""The most that is copied in the logs' thread, just before the swap: little at first, then twice as much each time that
more has come while the copy was made durable, so that the move of a busy log ends too.
"""

_log = logging.getLogger(__name__)


class Move:
    """The copy of one log, and what is left to do. `swap` is called when it has become as good as the log."""

    def __init__(
        self,
        fs: Fs,
        log: Log,
        copy: Log,
        target: LogDirectory,
        *,
        swap: Callable[["Move"], None],
        fail: Callable[[str, OSError], None],
        count: Callable[[int], None],
    ) -> None:
        self._fs = fs
        self._swap = swap
        self._fail = fail
        self._count = count
        self._damage: str | None = None
        self._source_error: OSError | None = None
        self._last_bytes = LAST_BYTES
        self.log = log
        self.copy = copy
        self.target = target
        self.is_busy = False
        """Whether a job is under way, which owns the copy meanwhile."""
        self.is_over = False
        """Cancelled, failed or done: no further job follows."""
        self.on_idle: Callable[[], None] | None = None
        """What was put off until the job that is under way has ended."""
        self.now_ms = 0
        """When the job that is under way began."""

    @property
    def key(self) -> TopicPartition:
        return self.log.topic, self.log.partition

    @property
    def offset_lag(self) -> int:
        return max(0, self.log.log_end_offset - self.copy.log_end_offset)

    def job(self, now_ms: int, slice_bytes: int) -> DiskJob | None:
        """The next slice, or, when little is left, what makes the copy durable. None if the log cannot be read."""
        try:
            self._align()
            is_near = self._missing_bytes() <= self._last_bytes
            region = None if is_near else self._read(slice_bytes)
        except ApiError as error:
            if error.code is not ErrorCode.KAFKA_STORAGE_ERROR:
                self._give_up(str(error))
            return None
        except OSError as error:
            self._fail(self.target.path, error)
            return None
        self.is_busy = True
        self.now_ms = now_ms
        if region is not None:
            return DiskJob(self.target.path, partial(self._copy, region), partial(self._guarded, self._ended))
        return DiskJob(self.target.path, self._sync, partial(self._guarded, self._finish))

    def _guarded(self, step: Callable[[], object]) -> None:
        """What touches the copy in the logs' thread."""
        try:
            step()
        except OSError as error:
            self._fail(self.target.path, error)

    def _give_up(self, reason: str) -> None:
        _log.error("%s-%d is not moved to %s: %s", *self.key, self.target.path, reason)
        self.is_over = True

    def _align(self) -> None:
        """Cut off what the log does not hold, and begin where it begins, if it has left the copy behind."""
        log, copy = self.log, self.copy
        latest = copy.leader_epochs.latest_epoch
        limit = log.log_end_offset
        if latest >= 0:
            epoch, end_offset = log.leader_epochs.end_offset_for(latest, log.log_end_offset)
            own_end = copy.leader_epochs.end_offset_for(epoch, copy.log_end_offset)[1]
            limit = min(end_offset, own_end) if epoch >= 0 else -1
        if limit < log.log_start_offset or copy.log_end_offset < log.log_start_offset:
            if copy.log_end_offset != log.log_start_offset or copy.size_bytes:
                copy.truncate_fully_and_start_at(log.log_start_offset)
        elif limit < copy.log_end_offset:
            copy.truncate_to(limit)

    def _read(self, max_bytes: int) -> FileRegion | None:
        """What follows in the log behind the copy's end."""
        return self.log.read(self.copy.log_end_offset, max_bytes, self.log.log_end_offset, min_one_batch=True)

    def _missing_bytes(self) -> int:
        """How much the log has behind the copy's end. Raises ApiError when it cannot be read."""
        offset = self.copy.log_end_offset
        missing = 0
        for segment in reversed(self.log.segments()):
            if segment.base_offset <= offset:
                try:
                    position = segment.position_of(offset)
                except CorruptBatchError as error:
                    raise ApiError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
                except OSError as error:
                    self.log.disk.on_error(error)
                    raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR) from error
                return missing if position is None else missing + segment.size - position
            missing += segment.size
        return missing

    def _copy_rest(self) -> None:
        """Copy all there is, in the logs' thread. Raises ApiError when the log cannot be read."""
        while (region := self._read(self._last_bytes)) is not None:
            self._copy(region)
            if self._source_error is not None or self._damage is not None:
                return

    def _copy(self, region: FileRegion) -> None:
        """In a worker thread, or, for the last of it, in the logs' thread."""
        try:
            data = memoryview(region.read())
        except OSError as error:
            self._source_error = error
            return
        try:
            if region.position == 0:
                # The copy has the log's segments. Gaps that compaction has left are never in the last one, and that
                # is the one in which recovery takes them for damage.
                self.copy.roll()
            self._append(data)
        except ApiError as error:
            self._damage = str(error)

    def _append(self, data: memoryview) -> None:
        first = None
        for header, batch in iter_batches(data):
            if not check_crc(batch):
                text = f"The batch at offset {header.base_offset} does not match its CRC"
                raise ApiError(ErrorCode.CORRUPT_MESSAGE, text)
            first = header.base_offset if first is None else first
        if first is not None and first < self.copy.log_end_offset:
            # The log starts in the middle of a batch, and the copy with it; batches are copied whole.
            self.copy.truncate_fully_and_start_at(first)
        self.copy.append_as_follower(data, self.now_ms)
        self._count(len(data))

    def _sync(self) -> None:
        copy = self.copy
        copy.flush()
        if copy.topic_id != ZERO_ID:
            File(self._fs, f"{copy.dir}/{PARTITION_METADATA}").sync()
        self._fs.sync_dir(str(copy.dir))

    def _ended(self) -> bool:
        """A job has ended. Whether the move goes on."""
        self.is_busy = False
        if self.on_idle is not None:
            self.on_idle()
            return False
        if self._source_error is not None:
            self.log.disk.on_error(self._source_error)
            return False
        if self._damage is not None:
            self._give_up(self._damage)
            return False
        self._follow()
        return not self.is_over

    def _follow(self) -> None:
        """Take over what is not in the records: high watermark and log start."""
        log, copy = self.log, self.copy
        copy.high_watermark = log.high_watermark
        if copy.log_start_offset < log.log_start_offset <= copy.high_watermark:
            copy.advance_log_start_offset(log.log_start_offset)
        copy.drop_idle_files()

    def _finish(self) -> None:
        """The copy is durable up to its end: copy what is left, if that is little, and change places."""
        if not self._ended():
            return
        try:
            self._align()
            if self._missing_bytes() > self._last_bytes:
                self._last_bytes = min(2 * self._last_bytes, MAX_LAST_BYTES)
                return
            self._copy_rest()
        except ApiError as error:
            if error.code is not ErrorCode.KAFKA_STORAGE_ERROR:
                self._give_up(str(error))
            return
        if not self._ended():
            return
        if self.copy.recovery_point < min(self.log.recovery_point, self.copy.log_end_offset):
            self.copy.flush()
        for epoch, start_offset in self.log.leader_epochs.entries():
            # An epoch in which nothing has been written is in no batch.
            if epoch > self.copy.leader_epochs.latest_epoch:
                self.copy.leader_epochs.assign(epoch, start_offset)
        self.is_over = True
        self._swap(self)
