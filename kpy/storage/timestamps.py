"""Finding records by their time, for ListOffsets.

The time index narrows the search to a few batches; the record is then found inside its batch, which may have to be
decompressed for that.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kpy.records.batch import iter_records
from kpy.storage.segment import Segment


class TimestampOffset(NamedTuple):
    """A record found by its timestamp."""

    timestamp: int
    offset: int
    leader_epoch: int


def first_at_or_after(segments: Sequence[Segment], timestamp_ms: int, start_offset: int) -> TimestampOffset | None:
    """The first record from `start_offset` on whose timestamp is at or after `timestamp_ms`.

    As in Apache Kafka, only the first segment with such a timestamp is searched (UnifiedLog.searchOffsetInLocalLog).
    """
    segment = next((each for each in segments if each.largest_timestamp() >= timestamp_ms), None)
    if segment is None:
        return None
    for header, batch in segment.batches_from_timestamp(timestamp_ms, start_offset):
        for record in iter_records(batch):
            if record.timestamp >= timestamp_ms and record.offset >= start_offset:
                return TimestampOffset(record.timestamp, record.offset, header.partition_leader_epoch)
    return None


def with_max_timestamp(segments: Sequence[Segment]) -> TimestampOffset | None:
    """The first record that has the largest timestamp of all (KIP-734); None for a log without timestamps."""
    segment = max(segments, key=lambda each: each.max_timestamp)
    if segment.max_timestamp < 0:
        return None
    for header, batch in segment.batches(segment.position_of(segment.offset_of_max_timestamp) or 0):
        if header.max_timestamp == segment.max_timestamp:
            for record in iter_records(batch):
                if record.timestamp == header.max_timestamp:
                    return TimestampOffset(record.timestamp, record.offset, header.partition_leader_epoch)
    return None
