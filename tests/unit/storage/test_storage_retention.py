"""Which segments retention deletes: whole ones, from the oldest on, below the high watermark."""

from dataclasses import replace
from pathlib import Path

import pytest

from kpy.records.batch import NewRecord, build_batch
from kpy.storage.fs import OsFs
from kpy.storage.log_config import LogConfig
from kpy.storage.retention import LogBounds, expired_count
from kpy.storage.segment import Segment

CONFIG = LogConfig(retention_ms=-1, retention_bytes=-1)
NOW_MS = 10_000


@pytest.fixture
def segments(tmp_path: Path) -> list[Segment]:
    """Four segments of one 100-byte batch each, at offsets 0 to 30, with timestamps 1000, 3000, 2000 and 4000."""
    found: list[Segment] = []
    for index, timestamp in enumerate((1000, 3000, 2000, 4000)):
        segment = Segment.create(OsFs(), str(tmp_path), 10 * index, 4096)
        data = build_batch([NewRecord(timestamp, None, bytes(32))], base_offset=10 * index)
        assert len(data) == 100
        segment.append([data], len(data), 10 * index, timestamp)
        found.append(segment)
    return found


def count(segments: list[Segment], config: LogConfig, start: int = 0, high_watermark: int = 31) -> int:
    return expired_count(segments, config, LogBounds(start, high_watermark, 31), NOW_MS)


def test_nothing_goes_without_limits(segments: list[Segment]) -> None:
    assert count(segments, CONFIG) == 0


@pytest.mark.parametrize(
    ("retention_ms", "expected"), [(9000, 0), (8999, 1), (7000, 1), (6999, 3), (6000, 3), (5999, 4)]
)
def test_segments_go_when_their_largest_timestamp_is_old(
    segments: list[Segment], retention_ms: int, expected: int
) -> None:
    """The third has older records than the second, but goes only after it."""
    assert count(segments, replace(CONFIG, retention_ms=retention_ms)) == expected


@pytest.mark.parametrize(("retention_bytes", "expected"), [(400, 0), (301, 0), (300, 1), (299, 1), (100, 3), (0, 4)])
def test_segments_go_as_long_as_the_wanted_size_remains(
    segments: list[Segment], retention_bytes: int, expected: int
) -> None:
    assert count(segments, replace(CONFIG, retention_bytes=retention_bytes)) == expected


@pytest.mark.parametrize(("start", "expected"), [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (31, 4)])
def test_segments_wholly_below_the_log_start_go(segments: list[Segment], start: int, expected: int) -> None:
    assert count(segments, CONFIG, start=start) == expected
    compacted = replace(CONFIG, cleanup_policy=frozenset({"compact"}))
    assert count(segments, compacted, start=start) == expected


@pytest.mark.parametrize(("high_watermark", "expected"), [(0, 0), (10, 1), (19, 1), (30, 3), (31, 4)])
def test_records_above_the_high_watermark_stay(segments: list[Segment], high_watermark: int, expected: int) -> None:
    assert count(segments, replace(CONFIG, retention_ms=0), high_watermark=high_watermark) == expected


def test_empty_active_segment_stays(segments: list[Segment], tmp_path: Path) -> None:
    segments.append(Segment.create(OsFs(), str(tmp_path), 31, 4096))
    assert count(segments, replace(CONFIG, retention_ms=0)) == 4


def test_compacted_log_keeps_old_segments(segments: list[Segment]) -> None:
    compacted = replace(CONFIG, cleanup_policy=frozenset({"compact"}), retention_ms=0, retention_bytes=0)
    assert count(segments, compacted) == 0
