"""What the quota of a replication throttle measures, and for how long it is exceeded (KIP-73)."""

import pytest

from kpy.replication_quota import (
    ALL_REPLICAS,
    NO_REPLICAS,
    ReplicationQuota,
    is_throttled,
    parse_throttled_replicas,
)


def quota_of(bytes_per_second: int, window_count: int = 3, window_size_ms: int = 1_000) -> ReplicationQuota:
    quota = ReplicationQuota(window_count, window_size_ms)
    quota.bytes_per_second = bytes_per_second
    return quota


def test_nothing_counted_exceeds_nothing() -> None:
    assert quota_of(0).exceeded_for_ms(5) == 0


def test_a_second_of_bytes_at_once_is_not_too_much_and_one_byte_more_is() -> None:
    quota = quota_of(100)
    quota.record(100, 0)
    assert quota.exceeded_for_ms(0) == 0
    quota.record(1, 0)
    assert quota.exceeded_for_ms(0) == 1010
    assert quota.exceeded_for_ms(1009) == 1
    assert quota.exceeded_for_ms(1010) == 0


def test_the_rate_is_that_since_the_first_byte_in_the_window() -> None:
    quota = quota_of(100)
    quota.record(150, 0)
    quota.record(150, 2_000)
    assert quota.exceeded_for_ms(2_000) == 1_000
    assert quota.exceeded_for_ms(2_999) == 1


def test_time_before_the_first_byte_is_not_saved_up() -> None:
    quota = quota_of(100)
    assert quota.exceeded_for_ms(0) == 0
    quota.record(200, 60_000)
    assert quota.exceeded_for_ms(60_000) == 2_000


def test_a_sample_is_forgotten_when_its_last_byte_is_older_than_all_windows() -> None:
    quota = quota_of(0)
    quota.record(1, 0)
    quota.record(1, 900)
    assert quota.exceeded_for_ms(900) == 3_000
    assert quota.exceeded_for_ms(3_899) == 1
    assert quota.exceeded_for_ms(3_900) == 0


def test_another_rate_counts_at_once() -> None:
    quota = quota_of(100)
    quota.record(1_000, 0)
    assert quota.exceeded_for_ms(0) > 0
    quota.bytes_per_second = 1_000
    assert quota.exceeded_for_ms(0) == 0
    quota.bytes_per_second = 999
    assert quota.exceeded_for_ms(0) == 1_002


def test_without_a_limit_no_amount_is_too_much() -> None:
    quota = ReplicationQuota()
    quota.record(1 << 50, 0)
    assert quota.exceeded_for_ms(0) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", NO_REPLICAS),
        ("*", ALL_REPLICAS),
        ("0:1", {(0, 1)}),
        ("0:1,12:034", {(0, 1), (12, 34)}),
        ("0:1,,2:3", {(0, 1), (2, 3)}),
    ],
)
def test_throttled_replicas_are_read(text: str, expected: object) -> None:
    assert parse_throttled_replicas(text.split(",")) == expected


def test_a_replica_is_throttled_by_its_own_partition_and_broker_or_with_all() -> None:
    named = parse_throttled_replicas(["0:1", "1:2"])
    assert is_throttled(named, 0, 1)
    assert not is_throttled(named, 0, 2)
    assert not is_throttled(named, 1, 1)
    assert is_throttled(ALL_REPLICAS, 7, 7)
    assert not is_throttled(NO_REPLICAS, 0, 1)
