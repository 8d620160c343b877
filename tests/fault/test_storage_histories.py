"""Ten thousand histories of a log and its faults where CI=true, fewer elsewhere; and whether the faults are there."""

import os
import random

import pytest

from tests.fault.simulated_disk import SECTOR_BYTES, SimulatedDisk
from tests.fault.storage_histories import History, run_all

HISTORIES = 10_000 if os.environ.get("CI") == "true" else 500
SEED = 20_241_126


@pytest.mark.timeout(900)
def test_no_history_loses_what_was_acknowledged_or_makes_up_what_was_not() -> None:
    tally = run_all(SEED, HISTORIES)
    assert tally.histories == HISTORIES
    assert tally.acknowledged > 10 * HISTORIES


def test_a_history_is_the_same_each_time() -> None:
    """Else a failure could not be looked at again."""

    def disk_after(seed: int) -> dict[str, bytes | None]:
        history = History(seed)
        history.run()
        return {path: None if node is None else bytes(node.data) for path, node in history.disk.names.items()}

    for seed in range(5):
        assert disk_after(seed) == disk_after(seed)


def test_a_power_cut_keeps_what_was_synced_and_tears_what_was_not() -> None:
    rng = random.Random(7)
    outcomes: set[bytes] = set()
    for _ in range(200):
        disk = SimulatedDisk()
        disk.makedirs("/d")
        fd = disk.open("/d/f", create=True)
        disk.pwritev(fd, [b"a" * 2 * SECTOR_BYTES], 0)
        disk.fsync(fd)
        disk.sync_dir("/d")
        disk.pwritev(fd, [b"b" * 2 * SECTOR_BYTES], 2 * SECTOR_BYTES)
        after = disk.power_cut(rng)
        content = after.pread(after.open("/d/f"), 1000, 0)
        assert content[: 2 * SECTOR_BYTES] == b"a" * 2 * SECTOR_BYTES
        outcomes.add(content[2 * SECTOR_BYTES :])
    first, second, nothing = b"b" * SECTOR_BYTES, b"b" * SECTOR_BYTES, b"\0" * SECTOR_BYTES
    assert {b"", first + second, nothing + second, first + nothing} < outcomes


def test_a_file_whose_name_was_not_synced_may_be_gone() -> None:
    disk = SimulatedDisk()
    disk.makedirs("/d")
    disk.fsync(disk.open("/d/f", create=True))
    rng = random.Random(7)
    assert {disk.power_cut(rng).exists("/d/f") for _ in range(50)} == {True, False}


def test_a_sync_that_failed_has_synced_nothing_then_or_later() -> None:
    disk = SimulatedDisk()
    disk.makedirs("/d")
    fd = disk.open("/d/f", create=True)
    disk.sync_dir("/d")
    disk.pwritev(fd, [b"a"], 0)
    disk.arm(0, 5, lasting=False)
    with pytest.raises(OSError, match="Input/output error"):
        disk.fsync(fd)
    disk.fsync(fd)
    rng = random.Random(7)
    assert b"" in {bytes(after.names["/d/f"].data) for after in (disk.power_cut(rng) for _ in range(50))}  # type: ignore[union-attr]  # it is a file
