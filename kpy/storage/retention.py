"""Which of a log's oldest segments may go: by age, by size, and below the log start offset.

Only whole segments go, from the oldest on, never past the high watermark, and the empty active segment stays (Kafka's
UnifiedLog.deleteOldSegments). Compacted logs without the delete policy only lose what lies below their start offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kpy.storage.log_config import LogConfig
from kpy.storage.segment import Segment

CLOCK_TOLERANCE_MS = 3_600_000
"""How far the clocks of producers may be ahead without a remark."""


@dataclass(frozen=True, slots=True)
class LogBounds:
    """The offsets that retention looks at."""

    log_start_offset: int
    high_watermark: int
    log_end_offset: int


def expired_count(segments: Sequence[Segment], config: LogConfig, bounds: LogBounds, now_ms: int) -> int:
    """How many segments, counted from the oldest, are to be deleted."""
    limit = _deletable_count(segments, bounds)
    count = _count_while([_end(segments, i, bounds) <= bounds.log_start_offset for i in range(limit)])
    if not config.is_deleted:
        return count
    if config.retention_bytes >= 0:
        count = max(count, _count_over_size(segments[:limit], sum(s.size for s in segments) - config.retention_bytes))
    if config.retention_ms >= 0:
        deadline_ms = now_ms - config.retention_ms
        while count < limit and segments[count].largest_timestamp() < deadline_ms:
            count += 1
    return count


def is_kept_by_future_timestamp(oldest: Segment, config: LogConfig, now_ms: int) -> bool:
    """Whether retention.ms will not delete the oldest segment before a time that has been set wrongly, most likely."""
    if not config.is_deleted or config.retention_ms < 0:
        return False
    return oldest.size > 0 and oldest.largest_timestamp() > now_ms + CLOCK_TOLERANCE_MS


def _end(segments: Sequence[Segment], slot: int, bounds: LogBounds) -> int:
    return segments[slot + 1].base_offset if slot + 1 < len(segments) else bounds.log_end_offset


def _deletable_count(segments: Sequence[Segment], bounds: LogBounds) -> int:
    """Segments whose records are all below the high watermark; an empty active segment is not counted."""
    candidates = len(segments) if segments[-1].size else len(segments) - 1
    return _count_while([_end(segments, slot, bounds) <= bounds.high_watermark for slot in range(candidates)])


def _count_over_size(segments: Sequence[Segment], excess_bytes: int) -> int:
    """A segment goes only when what remains is still at least the wanted size."""
    count = 0
    for segment in segments:
        excess_bytes -= segment.size
        if excess_bytes < 0:
            break
        count += 1
    return count


def _count_while(conditions: Sequence[bool]) -> int:
    return next((slot for slot, holds in enumerate(conditions) if not holds), len(conditions))
