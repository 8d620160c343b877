"""Whoever asks the quota first keeps to its rate, whatever is moved when; and is never held back for good."""

from hypothesis import given
from hypothesis import strategies as st

from kpy.replication_quota import ReplicationQuota

MAX_PIECE_BYTES = 500

quotas = st.tuples(st.integers(0, 300), st.integers(1, 5), st.integers(1, 1_000))
"""Bytes a second, samples, and a sample's milliseconds."""
pieces = st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, MAX_PIECE_BYTES)), max_size=60)
"""Milliseconds to wait, and bytes to move if the quota is not exceeded then."""


def make(arguments: tuple[int, int, int]) -> tuple[ReplicationQuota, int, int]:
    """The quota, one sample's milliseconds, and those of all of them."""
    bytes_per_second, window_count, window_size_ms = arguments
    quota = ReplicationQuota(window_count, window_size_ms)
    quota.bytes_per_second = bytes_per_second
    return quota, window_size_ms, window_count * window_size_ms


@given(quotas, pieces)
def test_no_more_is_moved_than_the_rate_and_a_piece_for_each_window(
    arguments: tuple[int, int, int], pieces: list[tuple[int, int]]
) -> None:
    quota, window_size_ms, window_ms = make(arguments)
    now_ms = moved = 0
    for pause_ms, size_bytes in pieces:
        now_ms += pause_ms
        if quota.exceeded_for_ms(now_ms) == 0:
            quota.record(size_bytes, now_ms)
            moved += size_bytes
    windows = now_ms // window_ms + 2
    allowed = quota.bytes_per_second * (now_ms + windows * window_size_ms) / 1000
    assert moved <= allowed + windows * MAX_PIECE_BYTES


@given(quotas, pieces)
def test_a_quota_is_exceeded_until_the_time_it_names_and_not_for_longer_than_its_window(
    arguments: tuple[int, int, int], pieces: list[tuple[int, int]]
) -> None:
    quota, _, window_ms = make(arguments)
    now_ms = 0
    for pause_ms, size_bytes in pieces:
        now_ms += pause_ms
        quota.record(size_bytes, now_ms)
    wait_ms = quota.exceeded_for_ms(now_ms)
    if wait_ms > 1:
        assert quota.exceeded_for_ms(now_ms + wait_ms // 2) > 0
        assert quota.exceeded_for_ms(now_ms + wait_ms - 1) > 0
    assert quota.exceeded_for_ms(now_ms + window_ms) == 0


@given(quotas, pieces)
def test_what_is_remembered_is_bounded(arguments: tuple[int, int, int], pieces: list[tuple[int, int]]) -> None:
    quota, *_ = make(arguments)
    now_ms = 0
    for pause_ms, size_bytes in pieces:
        now_ms += pause_ms
        quota.record(size_bytes, now_ms)
        assert len(quota._samples) <= arguments[1] + 1
