"""A disk in memory that forgets what was not synced, tears what it was writing, and fails or ends the process mid-call.

The fault model. What has been synced is never lost and never changes. When the power goes:

- Of a file's bytes that were not synced, each sector is on the disk as it was or as it was to be, whatever became of
  its neighbours: a write that spans sectors is torn, and writes are not ordered. What was never written reads as zeros.
- A file's size is the old one, the new one or one between them, whatever became of its bytes.
- Name changes (creations, renames, removals, directories) that were not synced survive in order up to a point drawn at
  random, as a journal keeps them; syncing a directory keeps all earlier ones. Syncing a file keeps none.

When the process dies, everything that its calls have done stays, and the call that it dies in is half done. When the
disk fails, the call that fails is half done and raises EIO or ENOSPC, once or from then on; a sync that has failed has
synced nothing, and later syncs of that file sync nothing either as long as the process lives: so a process that tries
again, and believes the second answer, loses data.

Not in the model: synced bytes that rot (tests/fault/test_storage_damage.py has those), a disk that says it has synced
what it has not, and pages that a failed sync has dropped while the next process still reads them from the cache.
"""

import errno
import os
import random
from collections.abc import Sequence

from kpy.storage.fs import Buffer
from tests.fault.storage_fs import Crash, MemoryFs, _Node

SECTOR_BYTES = 64
"""Far smaller than a real one, so that batches of a hundred bytes lie across several."""


class SimulatedDisk(MemoryFs):
    """A MemoryFs with faults. `arm` says when the next one comes; `killed` and `power_cut` give the disk afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_left: int | None = None
        self.error: int | None = None
        self.is_lasting = False
        self.is_dead = False
        self.failed_syncs: set[_Node] = set()

    def arm(self, calls: int, error: int | None, lasting: bool = True) -> None:
        """After so many calls that change the disk, fail with `error`, or without one end the process."""
        self.calls_left, self.error, self.is_lasting = calls, error, lasting

    def disarm(self) -> None:
        self.calls_left = None

    def _is_due(self) -> bool:
        if self.is_dead:
            raise Crash
        if self.calls_left is None:
            return False
        self.calls_left -= 1
        return self.calls_left < 0

    def _fail(self) -> None:
        if self.error is None:
            self.is_dead = True
            raise Crash
        if not self.is_lasting:
            self.disarm()
        raise OSError(self.error, os.strerror(self.error))

    # After the end.

    def killed(self) -> "SimulatedDisk":
        """The disk as the next process finds it: the page cache is still there."""
        after = SimulatedDisk()
        after.names, after.synced_names, after.history = self.names, self.synced_names, self.history
        after.clock_ms = self.clock_ms
        return after

    def power_cut(self, rng: random.Random) -> "SimulatedDisk":
        after = SimulatedDisk()
        after.clock_ms = self.clock_ms
        for path, node in rng.choice([self.synced_names, *self.history, self.names]).items():
            copy = None
            if node is not None:
                copy = _Node()
                copy.data[:] = self._surviving_content(node, rng)
                copy.synced = bytes(copy.data)
            after.names[path] = copy
        after.synced_names = dict(after.names)
        return after

    def _surviving_content(self, node: _Node, rng: random.Random) -> bytes:
        new, old = bytes(node.data), node.synced
        if new == old:
            return old
        size = rng.choice([len(old), len(new), rng.randint(min(len(old), len(new)), max(len(old), len(new)))])
        share = rng.choice([0.0, 0.5, 0.9, 1.0])
        survived = bytearray()
        for start in range(0, size, SECTOR_BYTES):
            was = old[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
            to_be = new[start : start + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
            survived += to_be if rng.random() < share else was
        return bytes(survived[:size])

    # The calls that change the disk.

    def open(self, path: str, create: bool = False) -> int:
        if create and path not in self.names and self._is_due():
            self._fail()
        return super().open(path, create)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        if self._is_due():
            data = b"".join(buffers)
            super().pwritev(fd, [data[: len(data) // 2]], position)
            self._fail()
        return super().pwritev(fd, buffers, position)

    def ftruncate(self, fd: int, size: int) -> None:
        if self._is_due():
            self._fail()
        super().ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        node = self.descriptors[fd]
        if self._is_due():
            if self.error is not None:
                self.failed_syncs.add(node)
            self._fail()
        if node not in self.failed_syncs:
            super().fsync(fd)

    def sync_dir(self, path: str) -> None:
        if self._is_due():
            self._fail()
        super().sync_dir(path)

    def rename(self, source: str, target: str) -> None:
        if source in self.names and self._is_due():
            self._fail()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        if path in self.names and self._is_due():
            self._fail()
        super().remove(path)

    def mkdir(self, path: str) -> None:
        if self._is_due():
            self._fail()
        super().mkdir(path)


DISK_ERRORS = (errno.EIO, errno.ENOSPC)
