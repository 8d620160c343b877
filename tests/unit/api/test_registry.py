"""The table of APIs: ranges that clients steer by, and a codec and handler for each row."""

import subprocess
import sys

import pytest

from kpy.api.registry import APIS, ROUTES, Route
from kpy.wire import apis as wire_apis

# What a live Apache Kafka 3.9.1 broker in ZooKeeper mode advertises for the APIs that kpy serves.
KAFKA_3_9_1 = {
    0: (0, 11),
    1: (0, 17),
    2: (0, 9),
    3: (0, 12),
    8: (0, 9),
    9: (0, 9),
    10: (0, 6),
    11: (0, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 5),
    16: (0, 5),
    18: (0, 4),
    19: (0, 7),
    20: (0, 6),
    21: (0, 2),
    22: (0, 5),
    23: (0, 4),
    24: (0, 5),
    25: (0, 4),
    26: (0, 4),
    27: (0, 1),
    28: (0, 4),
    32: (0, 4),
    33: (0, 2),
    34: (0, 2),
    35: (0, 4),
    37: (0, 3),
    42: (0, 2),
    43: (0, 2),
    44: (0, 1),
    45: (0, 0),
    46: (0, 0),
    47: (0, 0),
    60: (0, 1),
    61: (0, 0),
    65: (0, 0),
    66: (0, 1),
}


def test_every_api_of_the_first_release_is_served() -> None:
    assert {row[0] for row in APIS} >= set(KAFKA_3_9_1)


@pytest.mark.parametrize("row", APIS, ids=[row[1] for row in APIS])
def test_no_range_is_narrower_than_apache_kafkas(row: tuple[int, str, int, int]) -> None:
    key, _, lowest, highest = row
    expected_lowest, expected_highest = KAFKA_3_9_1[key]
    assert lowest <= expected_lowest
    assert highest >= expected_highest


@pytest.mark.parametrize("row", APIS, ids=[row[1] for row in APIS])
def test_every_row_has_a_codec_for_each_version_and_a_handler(row: tuple[int, str, int, int]) -> None:
    route = Route(*row)
    handler = route.load()
    assert handler.__name__ == route.name
    for version in range(route.min_version, route.max_version + 1):
        assert route.readers[version] is not None
        assert route.writers[version] is not None
    declared = wire_apis.APIS[route.key]
    assert (declared.module, declared.flexible_since is None) == (route.name, route.flexible_since > route.max_version)


def test_without_google_re2_no_version_that_needs_it_is_served() -> None:
    """ListTransactions v2 brings a pattern (KIP-1152)."""
    told = "import sys; sys.modules['re2'] = None; from kpy.api.registry import ROUTES; print(ROUTES[66].max_version)"
    result = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert (result.stdout, ROUTES[66].max_version) == ("1\n", 2)
