"""A proposal for another ISR holds the high watermark back, and lets it go again, however it ends."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpy.errors import ErrorCode
from kpy.metadata.image import PartitionImage
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.validate import ValidBatch
from kpy.replica.group_commit import GroupCommit
from kpy.replica.leader import REVERTED_BY, IsrChange
from kpy.replica.partition import Partition, Surroundings
from kpy.replica.purgatory import Purgatory
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs

LEADER, IN_SYNC, JOINING = 1, 2, 3
LAG_TIME_MAX_MS = 30_000


class Led:
    """A partition that this broker leads, with one record that only the joining follower does not have."""

    def __init__(self, root: Path) -> None:
        dirs = LogDirs.open(
            [root],
            broker_id=LEADER,
            cluster_id=None,
            now_ms=0,
            config_for=lambda _: LogConfig(),
            rng=random.Random(1),
        )
        self.dirs = dirs
        self.proposed: list[IsrChange] = []
        self.alive = {LEADER, IN_SYNC, JOINING}
        self.now_ms = 0
        surroundings = Surroundings(
            broker_id=LEADER,
            purgatory=Purgatory(),
            group_commit=GroupCommit(lambda job, done: None),
            clock_ms=lambda: self.now_ms,
            lag_time_max_ms=lambda: LAG_TIME_MAX_MS,
            is_alive=self.alive.__contains__,
            propose=lambda _, change: self.proposed.append(change),
            committed=lambda _: None,
        )
        image = PartitionImage(0, LEADER, 0, (LEADER, IN_SYNC, JOINING), (LEADER, IN_SYNC))
        self.partition = Partition("t", image, dirs.create_log("t", 0, bytes(16), LogConfig()), surroundings)
        self.partition.follower_fetched(JOINING, 0, 0)
        data = build_batch([NewRecord(1, None, b"value")])
        self.told: list[ErrorCode] = []
        self.partition.append(ValidBatch(read_header(data), memoryview(data), -1), -1, 0)
        self.partition.when_committed(1, self.told.append)
        self.partition.follower_fetched(IN_SYNC, 1, 0)


@pytest.fixture
def led(tmp_path: Path) -> Iterator[Led]:
    led = Led(tmp_path)
    yield led
    led.dirs.close(clean=False)


def test_what_a_joining_follower_does_not_have_waits(led: Led) -> None:
    assert [change.isr for change in led.proposed] == [(LEADER, IN_SYNC, JOINING)]
    assert not led.told


@pytest.mark.parametrize("error", sorted(REVERTED_BY))
def test_a_refusal_commits_what_has_waited_for_the_follower(led: Led, error: ErrorCode) -> None:
    led.alive.remove(JOINING)
    assert not led.partition.isr_refused(led.proposed[0], error)
    assert led.told == [ErrorCode.NONE]


def test_a_refusal_that_tells_nothing_changes_nothing(led: Led) -> None:
    assert led.partition.isr_refused(led.proposed[0], ErrorCode.UNKNOWN_SERVER_ERROR)
    assert not led.told


def test_an_isr_without_the_follower_commits_too(led: Led) -> None:
    led.alive.remove(JOINING)
    led.partition.isr_settled(led.proposed[0], 0, (LEADER, IN_SYNC), 1)
    assert led.told == [ErrorCode.NONE]


def test_a_follower_that_was_refused_and_falls_behind_is_waited_for_no_longer_than_the_lag_time(led: Led) -> None:
    led.partition.isr_refused(led.proposed[0], ErrorCode.INELIGIBLE_REPLICA)
    assert not led.told
    led.now_ms = LAG_TIME_MAX_MS
    led.partition.shrink_isr()
    assert not led.told
    led.now_ms += 1
    led.partition.shrink_isr()
    assert led.told == [ErrorCode.NONE]
