"""Disks that fail, for the storage fault tests: one over the real files, one that lives in memory and loses what was
not synced.
"""

import errno
import os
import random
from collections.abc import Sequence

from kpy.storage.fs import Buffer, OsFs


class Crash(BaseException):
    """The process is gone at this point. Not an Exception, so that no error handling of the storage can catch it."""


class UnsyncedFs(OsFs):
    """The real files without waiting for the disk, for tests in which no power is cut."""

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        return

    def sync_dir(self, path: str) -> None:
        return


class FailingFs(OsFs):
    """The real disk until `fail_at` changing operations have been done; that one and all later ones fail.

    With `error` it fails with that errno, as a broken or full disk does; without, the process crashes there. A write
    that fails has written half of its bytes before.
    """

    def __init__(self, fail_at: int, error: int | None = None) -> None:
        self.fail_at = fail_at
        self.error = error
        self.operations = 0

    def _step(self) -> bool:
        """Whether this operation fails."""
        self.operations += 1
        return self.operations > self.fail_at

    def _fail(self) -> None:
        if self.error is None:
            raise Crash
        raise OSError(self.error, os.strerror(self.error))

    def open(self, path: str, create: bool = False) -> int:
        if create and not os.path.exists(path) and self._step():
            self._fail()
        return super().open(path, create)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:  # type: ignore[override]  # OsFs binds os.pwritev
        if self._step():
            data = b"".join(buffers)
            os.pwrite(fd, data[: len(data) // 2], position)
            self._fail()
        return os.pwritev(fd, buffers, position)

    def ftruncate(self, fd: int, size: int) -> None:  # type: ignore[override]  # OsFs binds os.ftruncate
        if self._step() and self.error is None:
            self._fail()
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        if self._step():
            self._fail()

    def sync_dir(self, path: str) -> None:
        if self._step():
            self._fail()

    def rename(self, source: str, target: str) -> None:  # type: ignore[override]  # OsFs binds os.rename
        if os.path.exists(source) and self._step():
            self._fail()
        os.rename(source, target)

    def remove(self, path: str) -> None:  # type: ignore[override]  # OsFs binds os.remove
        if os.path.exists(path) and self._step():
            self._fail()
        os.remove(path)

    def mkdir(self, path: str) -> None:  # type: ignore[override]  # OsFs binds os.mkdir
        if self._step():
            self._fail()
        os.mkdir(path)


class _Node:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""


class MemoryFs:
    """A disk in memory whose `power_cut` forgets what was not synced.

    As on a journalling file system, name changes that were not synced survive in order, up to a point drawn at random,
    and file contents that were not synced survive in part, the rest of them being absent or zero.
    """

    def __init__(self) -> None:
        self.names: dict[str, _Node | None] = {}
        self.synced_names: dict[str, _Node | None] = {}
        self.history: list[dict[str, _Node | None]] = []
        self.descriptors: dict[int, _Node] = {}
        self.next_fd = 1000
        self.clock_ms = 0

    def power_cut(self, rng: random.Random) -> "MemoryFs":
        after = MemoryFs()
        surviving = rng.choice([self.synced_names, *self.history])
        for path, node in surviving.items():
            copy = None
            if node is not None:
                copy = _Node()
                copy.data[:] = self._surviving_content(node, rng)
                copy.synced = bytes(copy.data)
            after.names[path] = copy
        after.synced_names = dict(after.names)
        return after

    def _surviving_content(self, node: _Node, rng: random.Random) -> bytes:
        if bytes(node.data) == node.synced or rng.random() < 0.3:
            return node.synced
        pairs = zip(node.data, node.synced, strict=False)
        common = next((at for at, (new, old) in enumerate(pairs) if new != old), min(len(node.data), len(node.synced)))
        cut = rng.randint(common, len(node.data))
        zeros = len(node.data) - cut if rng.random() < 0.3 else 0
        return bytes(node.data[:cut]) + bytes(zeros)

    def _changed_names(self) -> None:
        self.history.append(dict(self.names))

    def open(self, path: str, create: bool = False) -> int:
        node = self.names.get(path)
        if node is None:
            if not create or path in self.names:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            if os.path.dirname(path) not in self.names:
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            node = self.names[path] = _Node()
            self._changed_names()
        self.next_fd += 1
        self.descriptors[self.next_fd] = node
        return self.next_fd

    def close(self, fd: int) -> None:
        del self.descriptors[fd]

    def pread(self, fd: int, size: int, position: int) -> bytes:
        return bytes(self.descriptors[fd].data[position : position + size])

    def is_cached(self, fd: int, position: int, size: int) -> bool:
        return True

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int) -> int:
        data, written = self.descriptors[fd].data, b"".join(buffers)
        data.extend(bytes(max(0, position - len(data))))
        data[position : position + len(written)] = written
        return len(written)

    def ftruncate(self, fd: int, size: int) -> None:
        data = self.descriptors[fd].data
        data.extend(bytes(max(0, size - len(data))))
        del data[size:]

    def fsync(self, fd: int) -> None:
        node = self.descriptors[fd]
        node.synced = bytes(node.data)

    def size(self, path: str) -> int:
        return len(self._file(path).data)

    def _file(self, path: str) -> _Node:
        node = self.names.get(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return node

    def modified_ms(self, path: str) -> int:
        self._file(path)
        return self.clock_ms

    def set_modified_ms(self, path: str, modified_ms: int) -> None:
        self._file(path)

    def rename(self, source: str, target: str) -> None:
        if source not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", source)
        for path in [path for path in self.names if path == source or path.startswith(source + "/")]:
            self.names[target + path[len(source) :]] = self.names.pop(path)
        self._changed_names()

    def remove(self, path: str) -> None:
        self._file(path)
        del self.names[path]
        self._changed_names()

    def mkdir(self, path: str) -> None:
        if path in self.names:
            raise FileExistsError(errno.EEXIST, "exists", path)
        self.names[path] = None
        self._changed_names()

    def makedirs(self, path: str) -> None:
        self.names.setdefault(path, None)
        self.synced_names.setdefault(path, None)

    def rmdir(self, path: str) -> None:
        del self.names[path]
        self._changed_names()

    def list(self, path: str) -> list[str]:
        prefix = path + "/"
        return [
            each[len(prefix) :] for each in self.names if each.startswith(prefix) and "/" not in each[len(prefix) :]
        ]

    def exists(self, path: str) -> bool:
        return path in self.names

    def is_dir(self, path: str) -> bool:
        return path in self.names and self.names[path] is None

    def sync_dir(self, path: str) -> None:
        """Name changes are journalled in order, so syncing one directory carries all earlier changes with it."""
        self.synced_names = dict(self.names)
        self.history.clear()

    def lock(self, path: str) -> int | None:
        return self.open(path, create=True)
