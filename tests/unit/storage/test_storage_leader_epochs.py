"""The epoch history of a log (KIP-101, KIP-320)."""

from pathlib import Path

import pytest

from kpy.storage.fs import OsFs
from kpy.storage.leader_epochs import MAX_TOLD, EpochRecovery, LeaderEpochs

LOG_END = 100


@pytest.fixture
def epochs(tmp_path: Path) -> LeaderEpochs:
    epochs = LeaderEpochs(OsFs(), str(tmp_path))
    for epoch, start_offset in ((2, 0), (4, 30), (7, 60)):
        epochs.assign(epoch, start_offset)
    return epochs


def reloaded(tmp_path: Path) -> list[tuple[int, int]]:
    epochs = LeaderEpochs(OsFs(), str(tmp_path))
    epochs.load()
    return epochs.entries()


def test_new_epochs_are_kept_in_the_file(epochs: LeaderEpochs, tmp_path: Path) -> None:
    assert epochs.latest_epoch == 7
    assert reloaded(tmp_path) == epochs.entries() == [(2, 0), (4, 30), (7, 60)]


def test_epoch_that_has_begun_already_does_not_begin_again(epochs: LeaderEpochs) -> None:
    epochs.assign(7, 80)
    assert epochs.entries()[-1] == (7, 60)


@pytest.mark.parametrize(
    ("epoch", "start_offset", "expected"),
    [
        (8, 60, [(2, 0), (4, 30), (8, 60)]),
        (8, 20, [(2, 0), (8, 20)]),
        (4, 90, [(2, 0), (4, 90)]),
        (7, 50, [(2, 0), (4, 30), (7, 50)]),
        (9, 0, [(9, 0)]),
    ],
)
def test_entries_that_contradict_a_new_one_go(
    epochs: LeaderEpochs, tmp_path: Path, epoch: int, start_offset: int, expected: list[tuple[int, int]]
) -> None:
    epochs.assign(epoch, start_offset)
    assert reloaded(tmp_path) == epochs.entries() == expected
    assert epochs.latest_epoch == epoch


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (-1, (-1, -1)),
        (0, (0, 0)),
        (2, (2, 30)),
        (3, (2, 30)),
        (4, (4, 60)),
        (6, (4, 60)),
        (7, (7, LOG_END)),
        (8, (-1, -1)),
    ],
)
def test_end_offset_is_that_of_the_largest_epoch_up_to_the_one_asked_for(
    epochs: LeaderEpochs, asked: int, answer: tuple[int, int]
) -> None:
    assert epochs.end_offset_for(asked, LOG_END) == answer


def test_nothing_is_known_of_any_epoch_in_an_empty_history(tmp_path: Path) -> None:
    epochs = LeaderEpochs(OsFs(), str(tmp_path))
    epochs.load()
    assert epochs.end_offset_for(0, LOG_END) == (-1, -1)
    assert epochs.epoch_for(0) == -1
    assert epochs.latest_epoch == -1


@pytest.mark.parametrize(("offset", "epoch"), [(0, 2), (29, 2), (30, 4), (60, 7), (99, 7)])
def test_epoch_of_an_offset(epochs: LeaderEpochs, offset: int, epoch: int) -> None:
    assert epochs.epoch_for(offset) == epoch


@pytest.mark.parametrize(("end_offset", "expected"), [(61, 3), (60, 2), (31, 2), (30, 1), (0, 0)])
def test_truncating_the_end_forgets_the_epochs_that_begin_there(
    epochs: LeaderEpochs, tmp_path: Path, end_offset: int, expected: int
) -> None:
    kept = epochs.entries()[:expected]
    epochs.truncate_from_end(end_offset)
    assert reloaded(tmp_path) == epochs.entries() == kept
    assert epochs.latest_epoch == (kept[-1][0] if kept else -1)


@pytest.mark.parametrize(
    ("start_offset", "expected"),
    [(0, [(2, 0), (4, 30), (7, 60)]), (10, [(2, 10), (4, 30), (7, 60)]), (30, [(4, 30), (7, 60)]), (75, [(7, 75)])],
)
def test_truncating_the_start_moves_the_epoch_that_holds_it(
    epochs: LeaderEpochs, tmp_path: Path, start_offset: int, expected: list[tuple[int, int]]
) -> None:
    epochs.truncate_from_start(start_offset)
    assert reloaded(tmp_path) == epochs.entries() == expected


@pytest.mark.parametrize("entry", [(-1, 0), (0, -1)])
def test_negative_epoch_or_offset_is_a_mistake(epochs: LeaderEpochs, entry: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot start"):
        epochs.assign(*entry)


def test_an_epoch_without_records_reaches_the_file_with_its_first_one(epochs: LeaderEpochs, tmp_path: Path) -> None:
    epochs.begin(9, 80)
    assert epochs.entries()[-1] == (9, 80)
    assert reloaded(tmp_path)[-1] == (7, 60)
    assert epochs.saved_epoch == 7
    epochs.assign(9, 80)
    assert reloaded(tmp_path)[-1] == (9, 80)


def test_an_epoch_that_recovery_forgot_is_written_anew_when_it_comes_again(
    epochs: LeaderEpochs, tmp_path: Path
) -> None:
    epochs.forget_from(50)
    epochs.begin(7, 50)
    assert epochs.saved_epoch < 7
    epochs.assign(7, 50)
    assert reloaded(tmp_path) == [(2, 0), (4, 30), (7, 50)]


@pytest.mark.parametrize(
    ("batches", "recovered"),
    [
        ([2, 2, 4, 7], [(2, 50), (4, 52), (7, 53)]),
        ([2, 2, 99, 2, 7], [(2, 50), (7, 54)]),
        ([2, 2, 1, 2], [(2, 50)]),
        ([2, 2, -1, 2], [(2, 50)]),
        ([99, 2, 2], [(2, 51)]),
        ([2, 2, 99, 99, 2], [(2, 50), (99, 52)]),
        ([2, 2, 99], [(2, 50), (99, 52)]),
    ],
)
def test_recovery_passes_over_single_epochs_that_cannot_be(
    tmp_path: Path, batches: list[int], recovered: list[tuple[int, int]]
) -> None:
    epochs = LeaderEpochs(OsFs(), str(tmp_path))
    recovery = EpochRecovery(epochs)
    for offset, epoch in enumerate(batches, start=50):
        recovery.meet(epoch, offset)
    assert epochs.entries() == recovered


@pytest.mark.parametrize(
    ("batches", "recovered"),
    [
        ([2, 2, 3, 4, 4], [(2, 28), (4, 30)]),
        ([2, 2, 3, 3, 4], [(2, 28), (3, 30), (4, 32)]),
        ([2, 2, 2, 4, 4], [(2, 28), (4, 31)]),
        ([2, 2, 9, 4, 4], [(2, 28), (4, 30)]),
        ([2, 2, 4, 9, 9], [(2, 28), (4, 30), (9, 31)]),
    ],
)
def test_recovery_asks_the_checkpoint_about_a_batch_that_is_unlike_the_others(
    epochs: LeaderEpochs, batches: list[int], recovered: list[tuple[int, int]]
) -> None:
    """It says that epoch 4 begins at 30, and 7 at 60."""
    recovery = EpochRecovery(epochs)
    epochs.forget_from(0)
    for offset, epoch in enumerate(batches, start=28):
        recovery.meet(epoch, offset)
    assert epochs.entries() == recovered


def test_recovery_believes_batches_before_the_first_offset_in_the_checkpoint(tmp_path: Path) -> None:
    """A log start that a crash has taken back: the checkpoint begins within the first batch."""
    epochs = LeaderEpochs(OsFs(), str(tmp_path))
    epochs.assign(0, 2)
    epochs.assign(1, 4)
    recovery = EpochRecovery(epochs)
    epochs.forget_from(0)
    for epoch, offset in ((0, 0), (1, 4), (1, 8)):
        recovery.meet(epoch, offset)
    assert epochs.entries() == [(0, 0), (1, 4)]


def test_recovery_names_a_few_damaged_epochs_and_no_more(
    epochs: LeaderEpochs, caplog: pytest.LogCaptureFixture
) -> None:
    recovery = EpochRecovery(epochs)
    for offset in range(70, 70 + 2 * MAX_TOLD):
        recovery.meet(1, offset)
    assert len(caplog.records) == MAX_TOLD
    assert epochs.entries() == [(2, 0), (4, 30), (7, 60)]
