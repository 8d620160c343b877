"""Which configs reach which quota."""

from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from kpy.config import BrokerConfig, has_effect
from kpy.member import Member
from kpy.replica.membership import Membership
from kpy.replication_quota import ReplicationQuota
from tests.unit.api.log_broker import open_broker

COUNT, SIZE_S = 2, 3
WINDOWS = {"replication.quota.window.num": str(COUNT), "replication.quota.window.size.seconds": str(SIZE_S)}


def remembered_ms(quota: ReplicationQuota) -> int:
    """For how long a byte counts."""
    quota.bytes_per_second = 0
    quota.record(1, 0)
    return quota.exceeded_for_ms(0)


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_the_window_of_replication_is_that_of_both_sides(side: str) -> None:
    config = BrokerConfig.of(WINDOWS)
    member = Member(config, cast("Any", MagicMock()), Membership(), lambda: 0)
    assert remembered_ms(getattr(member.cooperation.throttles, side)) == 1000 * COUNT * SIZE_S


def test_moves_between_data_directories_have_a_window_of_their_own(tmp_path: Path) -> None:
    settings = {f"alter.log.dirs.{key}": value for key, value in WINDOWS.items()}
    with open_broker(tmp_path, settings=settings) as broker:
        assert remembered_ms(broker.replicas.log_dirs.mover.quota) == 1000 * COUNT * SIZE_S


@pytest.mark.parametrize("kind", ["", "alter.log.dirs."])
@pytest.mark.parametrize("key", WINDOWS)
def test_windows_are_shown_to_have_an_effect(kind: str, key: str) -> None:
    assert has_effect(kind + key)
