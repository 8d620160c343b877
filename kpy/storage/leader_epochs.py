"""Which leader epoch began at which offset: the history that lets replicas agree on where their logs diverge.

Entries rise in both columns. The epoch of an entry ends where the next entry starts, or at the log end for the last one
(KIP-101, KIP-279, Kafka class LeaderEpochFileCache). The file leader-epoch-checkpoint follows every change at once, but
for an epoch without records, which waits for its first one: thousands of partitions get a leader at a start. It is only
made durable by `sync`, which a flush calls before the recovery point may pass the entries' offsets: what a power cut
takes away can then be read again from the batches above the recovery point.
"""

import logging
from bisect import bisect_right

from kpy.storage.checkpoints import LEADER_EPOCHS, read_epochs, write_epochs
from kpy.storage.fs import File, Fs

UNDEFINED_EPOCH = -1
UNDEFINED_OFFSET = -1
MAX_TOLD = 10
"""So many damaged epochs of one log are named."""

_log = logging.getLogger(__name__)


class LeaderEpochs:
    """The epochs of the log in one directory, backed by its leader-epoch-checkpoint file."""

    __slots__ = ("_directory", "_entries", "_fs", "_unsynced", "latest_epoch", "saved_epoch")

    def __init__(self, fs: Fs, directory: str) -> None:
        self._fs = fs
        self._directory = directory
        self._entries: list[tuple[int, int]] = []
        self._unsynced = False
        self.latest_epoch = UNDEFINED_EPOCH
        self.saved_epoch = UNDEFINED_EPOCH
        """The latest epoch in the file."""

    def load(self) -> None:
        """Read the file. Raises StorageError when it is malformed."""
        for epoch, start_offset in read_epochs(self._fs, self._path):
            self._insert(epoch, start_offset)
        self._unsynced = False
        self.saved_epoch = self.latest_epoch

    def save(self) -> None:
        write_epochs(self._fs, self._path, self._entries)
        self._unsynced = True
        self.saved_epoch = self.latest_epoch

    def sync(self) -> None:
        """Make the file durable if it has changed since the last time. May run in a worker thread."""
        if self._unsynced:
            self._unsynced = False
            File(self._fs, self._path).sync()
            self._fs.sync_dir(self._directory)

    def moved_to(self, directory: str) -> None:
        self._directory = directory

    @property
    def _path(self) -> str:
        return f"{self._directory}/{LEADER_EPOCHS}"

    def entries(self) -> list[tuple[int, int]]:
        """(epoch, start offset) pairs, oldest first."""
        return list(self._entries)

    def assign(self, epoch: int, start_offset: int) -> None:
        """Say that `epoch` begins with the record at `start_offset`; entries that contradict it go."""
        if self._insert(epoch, start_offset) or epoch > self.saved_epoch:
            self.save()

    def begin(self, epoch: int, log_end_offset: int) -> None:
        """Say that `epoch` begins at the log end, before it has a record; the file learns of it with the first one."""
        self._insert(epoch, log_end_offset)

    def note(self, epoch: int, start_offset: int) -> None:
        """`assign` for recovery, which meets every batch: only a higher epoch counts, and `save` comes at the end."""
        if epoch > self.latest_epoch:
            self._insert(epoch, start_offset)

    def _insert(self, epoch: int, start_offset: int) -> bool:
        entries = self._entries
        if epoch < 0 or start_offset < 0:
            raise ValueError(f"leader epoch {epoch} cannot start at offset {start_offset}")
        if entries and entries[-1][0] == epoch and entries[-1][1] <= start_offset:
            return False
        while entries and (entries[-1][0] >= epoch or entries[-1][1] >= start_offset):
            entries.pop()
        entries.append((epoch, start_offset))
        self.latest_epoch = epoch
        return True

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The largest known epoch <= `epoch` and where it ends, as OffsetForLeaderEpoch answers it (KIP-320).

        (UNDEFINED_EPOCH, UNDEFINED_OFFSET) for an epoch above the latest; an epoch below the first ends where the first
        one starts.
        """
        entries = self._entries
        if epoch == UNDEFINED_EPOCH or not entries or epoch > entries[-1][0]:
            return UNDEFINED_EPOCH, UNDEFINED_OFFSET
        if epoch == entries[-1][0]:
            return epoch, log_end_offset
        higher = bisect_right(entries, epoch, key=lambda entry: entry[0])
        floor_epoch = entries[higher - 1][0] if higher else epoch
        return floor_epoch, entries[higher][1]

    def epoch_for(self, offset: int) -> int:
        """The epoch of the record at `offset`; UNDEFINED_EPOCH when it lies before the first entry."""
        return _epoch_at(self._entries, offset)

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget the epochs that start at or above `end_offset`."""
        if self._entries and self._entries[-1][1] >= end_offset:
            self.forget_from(end_offset)
            self.save()

    def forget_from(self, end_offset: int) -> None:
        """`truncate_from_end` without the file: entries that no record bears out do no harm there."""
        entries = self._entries
        while entries and entries[-1][1] >= end_offset:
            entries.pop()
        self.latest_epoch = entries[-1][0] if entries else UNDEFINED_EPOCH
        self.saved_epoch = min(self.saved_epoch, self.latest_epoch)

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget what lies below the new log start; the epoch that holds it begins there now."""
        entries = self._entries
        held = bisect_right(entries, start_offset, key=lambda entry: entry[1])
        if held == 0 or (held == 1 and entries[0][1] == start_offset):
            return
        entries[:held] = [(entries[held - 1][0], start_offset)]
        self.save()

    def clear(self) -> None:
        self._entries.clear()
        self.latest_epoch = UNDEFINED_EPOCH
        self.save()


class EpochRecovery:
    """Rebuilds the leader epochs from the batches of a log, in whose headers they lie outside the CRC.

    As in Apache Kafka an epoch that falls is passed over, and no record is lost for it. A single batch is damaged too
    if its epoch is above those behind it, or if the checkpoint denies it, which lacks at most the latest epochs. What
    the checkpoint had said of its offset counts instead.
    """

    def __init__(self, epochs: LeaderEpochs) -> None:
        self._epochs = epochs
        self._known = epochs.entries()
        self._alone = UNDEFINED_OFFSET
        """The batch that alone has the latest epoch, if the checkpoint did not say so."""
        self._passed_over = 0

    def meet(self, epoch: int, offset: int) -> None:
        """The batch at `offset` has this epoch; a negative one stands for none."""
        latest = self._epochs.latest_epoch
        if epoch < 0:
            self._epochs.note(_epoch_at(self._known, offset), offset)
            return
        if self._alone != UNDEFINED_OFFSET and epoch != latest and (epoch < latest or self._denies(latest)):
            self._epochs.forget_from(self._alone)
            self._pass_over(latest, self._alone)
        self._alone = UNDEFINED_OFFSET
        if epoch > self._epochs.latest_epoch:
            self._epochs.note(epoch, offset)
            if _epoch_at(self._known, offset) != epoch:
                self._alone = offset
        elif epoch < self._epochs.latest_epoch:
            self._pass_over(epoch, offset)

    def _denies(self, epoch: int) -> bool:
        """Whether the checkpoint has a higher epoch at the batch that is alone, or another one, and others later."""
        known = _epoch_at(self._known, self._alone)
        return known != UNDEFINED_EPOCH and (epoch < known or self._alone < self._known[-1][1])

    def _pass_over(self, epoch: int, offset: int) -> None:
        self._passed_over += 1
        if self._passed_over <= MAX_TOLD:
            _log.warning("the batch at offset %d has leader epoch %d, unlike those around it", offset, epoch)
        self._epochs.note(_epoch_at(self._known, offset), offset)


def _epoch_at(entries: list[tuple[int, int]], offset: int) -> int:
    slot = bisect_right(entries, offset, key=lambda entry: entry[1]) - 1
    return entries[slot][0] if slot >= 0 else UNDEFINED_EPOCH
