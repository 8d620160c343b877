"""Whether the leader epochs in batches and in leader-epoch-checkpoint agree.

A batch's leader epoch lies outside its CRC. So it is compared with its neighbours, since epochs never fall, and with
the file. A single batch that stands out is damaged; where more of them disagree with the file, the file is.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from kpy.errors import StorageError
from kpy.records.batch import BatchHeader
from kpy.storage.checkpoints import LEADER_EPOCHS, read_epochs, write_epochs
from kpy.storage.findings import Finding, Severity
from kpy.storage.fs import Fs
from kpy.storage.leader_epochs import UNDEFINED_EPOCH, LeaderEpochs

MAX_RUNS = 100_000
"""More changes of leader than any log has seen; what comes behind them is not compared."""

_MISLED = "replicas and consumers that compare leader epochs are misled; the records are not affected"
_REBUILT = "the next start goes by the file if it can be read, and rebuilds it from the batches if not"


_Repair = Callable[[], str] | None


class _Run(NamedTuple):
    """Batches of one epoch that follow one another."""

    epoch: int
    first_offset: int
    last_offset: int
    path: str
    position: int
    batches: int


class EpochCheck:
    """Follows the epochs of a log's batches."""

    def __init__(self, fs: Fs, directory: str) -> None:
        self._fs = fs
        self._directory = directory
        self._path = f"{directory}/{LEADER_EPOCHS}"
        self._runs: list[_Run] = []
        self._outliers: list[_Run] = []
        self.epoch = UNDEFINED_EPOCH
        """That of the last batch, so that the walker need not call for each one."""
        self._batches = 0
        self._last_offset = -1

    def meet(self, header: BatchHeader, path: str, position: int) -> None:
        """The walk has come to a batch."""
        offset, epoch = header.base_offset, header.partition_leader_epoch
        if epoch == self.epoch and self._runs:
            self._batches += 1
            self._last_offset = header.last_offset
            return
        self._close_run()
        self.epoch, self._batches, self._last_offset = epoch, 1, header.last_offset
        if len(self._runs) < MAX_RUNS:
            self._runs.append(_Run(epoch, offset, offset, path, position, 1))

    def _close_run(self) -> None:
        """The last run is complete: tell it from its predecessors, where single batches can stand out."""
        runs = self._runs
        if not runs:
            return
        last = runs.pop()._replace(last_offset=self._last_offset, batches=self._batches)
        while runs and runs[-1].epoch > last.epoch and runs[-1].batches == 1:
            self._outliers.append(runs.pop())
        if not runs or runs[-1].epoch < last.epoch:
            runs.append(last)
        elif runs[-1].epoch == last.epoch:
            batches = runs[-1].batches + last.batches
            runs[-1] = runs[-1]._replace(last_offset=last.last_offset, batches=batches)
        else:
            self._outliers.append(last)

    def finish(self, start_offset: int, end_offset: int, is_damaged: bool) -> Iterator[Finding]:
        """What is wrong with the epochs of a log from `start_offset` to `end_offset`."""
        self._close_run()
        for run in self._outliers:
            what = f"the batch at offset {run.first_offset} has leader epoch {run.epoch}, unlike those around it"
            yield Finding(Severity.WARNING, run.path, run.position, what, _MISLED)
        runs = [run for run in self._runs if run.epoch >= 0]
        repair = None if is_damaged else partial(self._rebuild, [(run.epoch, run.first_offset) for run in runs])
        epochs = LeaderEpochs(self._fs, self._directory)
        try:
            read_epochs(self._fs, self._path)
            epochs.load()
        except (StorageError, ValueError) as error:
            yield Finding(Severity.WARNING, self._path, None, _reason(error, self._path), _REBUILT, repair)
            return
        yield from self._compare(epochs, runs, start_offset, end_offset, repair)

    def _compare(
        self, epochs: LeaderEpochs, runs: list[_Run], start_offset: int, end_offset: int, repair: _Repair
    ) -> Iterator[Finding]:
        entries = epochs.entries()
        if runs and not entries:
            what = "has no leader epochs, though there are batches"
            yield Finding(Severity.WARNING, self._path, None, what, _REBUILT, repair)
            return
        if runs and runs[-1].epoch > entries[-1][0] and runs[-1].batches == 1 and runs[-1].first_offset > start_offset:
            run = runs.pop()
            what = f"the last batch has leader epoch {run.epoch}, leader-epoch-checkpoint ends with {entries[-1][0]}"
            yield Finding(Severity.WARNING, run.path, run.position, what, _MISLED)
        for run in runs:
            first = max(run.first_offset, start_offset)
            for offset in (first, max(first, run.last_offset)):
                known = epochs.epoch_for(offset)
                if known != run.epoch:
                    has = "no epoch" if known == UNDEFINED_EPOCH else f"epoch {known}"
                    what = f"has {has} for offset {offset}, where the batch has leader epoch {run.epoch}"
                    if run.batches == 1:
                        what = (
                            f"the batch at offset {offset} has leader epoch {run.epoch}, leader-epoch-checkpoint {has}"
                        )
                        yield Finding(Severity.WARNING, run.path, run.position, what, _MISLED)
                        return
                    yield Finding(Severity.WARNING, self._path, None, what, _MISLED, repair)
                    return
        if entries and entries[-1][1] > end_offset:
            what = f"has epoch {entries[-1][0]} from offset {entries[-1][1]} on, but the log ends at {end_offset}"
            yield Finding(Severity.WARNING, self._path, None, what, "the next start drops it", repair)

    def _rebuild(self, entries: list[tuple[int, int]]) -> str:
        write_epochs(self._fs, self._path, entries)
        return f"rebuilt from the batches, {len(entries)} epochs"


def _reason(error: Exception, path: str) -> str:
    return str(error).removeprefix(path).strip()
