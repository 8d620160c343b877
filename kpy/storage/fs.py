"""Every touch of the disk goes through an `Fs`, so that tests can inject faults, crashes and lost writes.

The seam lies at the system calls, not above them: an `Fs` is a handful of functions with the meaning of their POSIX
namesakes, and `OsFs` binds most of them straight to `os`, so that the hot path pays for the system call and little
else. Paths are plain strings here, because pathlib costs more than the calls it wraps.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from typing import Protocol

from kpy.storage import page_cache

Buffer = bytes | bytearray | memoryview

MODE = 0o644
FIRST_READ_BYTES = 1 << 12
READ_AT_ONCE_BYTES = 1 << 20
"""Of a file that is read whole. Most have a few bytes, and a buffer of a megabyte is pages to be mapped."""
MAX_FILE_BYTES = 64 << 20
"""Of what is read whole: room for the snapshot of 1.4 million producers, or 1.9 million aborts in one segment."""


class Fs(Protocol):
    """The file operations that storage needs. Failures are OSErrors, as from `os`."""

    def open(self, path: str, create: bool = False) -> int:
        """A descriptor for reading and writing; `create` makes the file when it is missing."""
        ...

    def close(self, fd: int, /) -> None: ...
    def pread(self, fd: int, size: int, position: int, /) -> bytes: ...
    def is_cached(self, fd: int, position: int, size: int) -> bool:
        """Whether a read of this range, which lies in the file, need not wait for the disk."""
        ...

    def pwritev(self, fd: int, buffers: Sequence[Buffer], position: int, /) -> int: ...
    def ftruncate(self, fd: int, size: int, /) -> None: ...
    def fsync(self, fd: int, /) -> None: ...
    def allocate(self, fd: int, position: int, size: int, /) -> None:
        """Reserve room on the disk for these bytes of a file, which grows if it is shorter."""
        ...

    def size(self, path: str, /) -> int: ...
    def modified_ms(self, path: str) -> int: ...
    def set_modified_ms(self, path: str, modified_ms: int) -> None: ...
    def rename(self, source: str, target: str, /) -> None: ...
    def remove(self, path: str, /) -> None: ...
    def mkdir(self, path: str, /) -> None: ...
    def makedirs(self, path: str) -> None: ...
    def rmdir(self, path: str, /) -> None: ...
    def list(self, path: str, /) -> list[str]: ...
    def exists(self, path: str, /) -> bool: ...
    def is_dir(self, path: str, /) -> bool: ...
    def real_path(self, path: str) -> str:
        """The path without symbolic links."""
        ...

    def space_bytes(self, path: str) -> tuple[int, int]:
        """The size of the file system that holds `path`, and what this process may still use of it."""
        ...

    def sync_dir(self, path: str) -> None:
        """Make creations, renames and removals in this directory durable."""
        ...

    def lock(self, path: str) -> int | None:
        """Create and lock a file for this process; None when another process holds it."""
        ...


class OsFs:
    """The real disk."""

    is_cached = staticmethod(page_cache.holds)
    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    pwritev = staticmethod(os.pwritev)
    ftruncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)
    allocate = staticmethod(os.posix_fallocate)
    size = staticmethod(os.path.getsize)
    rename = staticmethod(os.rename)
    remove = staticmethod(os.remove)
    mkdir = staticmethod(os.mkdir)
    rmdir = staticmethod(os.rmdir)
    list = staticmethod(os.listdir)
    exists = staticmethod(os.path.exists)
    is_dir = staticmethod(os.path.isdir)

    def open(self, path: str, create: bool = False) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), MODE)

    def makedirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def set_modified_ms(self, path: str, modified_ms: int) -> None:
        os.utime(path, ns=(modified_ms * 1_000_000, modified_ms * 1_000_000))

    def real_path(self, path: str) -> str:
        return os.path.realpath(path)

    def space_bytes(self, path: str) -> tuple[int, int]:
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> int | None:
        fd = self.open(path, create=True)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        return fd


class File:
    """An open file. The descriptor is closed when the last reference goes, so what was handed out stays readable.

    A segment that is deleted or closed only drops its reference; a response that still sends from the file keeps it
    open.
    """

    __slots__ = ("_close", "_fd", "_fs")

    def __init__(self, fs: Fs, path: str, create: bool = False) -> None:
        self._fd = -1
        self._fs = fs
        self._close = fs.close
        self._fd = fs.open(path, create)

    def __del__(self) -> None:
        if self._fd >= 0:
            self._close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int, position: int) -> bytes:
        """`size` bytes from `position`; fewer only at the end of the file."""
        data = self._fs.pread(self._fd, size, position)
        if len(data) == size or not data:
            return data
        parts = [data]
        missing = size - len(data)
        while missing and (data := self._fs.pread(self._fd, missing, position + size - missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def is_cached(self, position: int, size: int) -> bool:
        return self._fs.is_cached(self._fd, position, size)

    def write(self, data: Buffer, position: int) -> None:
        """Write all of `data`, however many calls it takes."""
        rest = memoryview(data)
        while rest:
            written = self._fs.pwritev(self._fd, [rest], position)
            position += written
            rest = rest[written:]

    def truncate(self, size: int) -> None:
        self._fs.ftruncate(self._fd, size)

    def sync(self) -> None:
        self._fs.fsync(self._fd)


TOO_SHORT = "a segment file is shorter than its index says"


class FileRegion:
    """A run of bytes in a file: what a fetch response sends, by sendfile or by `read`.

    A caller may lower `size` to cut it, never raise it.
    """

    __slots__ = ("file", "position", "size")

    def __init__(self, file: File, position: int, size: int) -> None:
        self.file = file
        self.position = position
        self.size = size

    def __len__(self) -> int:
        return self.size

    def read(self) -> bytes:
        return self.file.read(self.size, self.position)

    def read_whole(self) -> bytes:
        """What a client has been told of. Raises OSError where the file is shorter: it would wait for the rest."""
        data = self.file.read(self.size, self.position)
        if len(data) < self.size:
            raise OSError(TOO_SHORT)
        return data

    def after(self, count: int) -> "FileRegion":
        """What is left of it behind its first `count` bytes."""
        return FileRegion(self.file, self.position + count, self.size - count)


class FileTooLargeError(ValueError):
    """A file that would be read whole is larger than any sound one of its kind."""


def read_file(fs: Fs, path: str, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The whole file. Raises FileNotFoundError, and FileTooLargeError when it has read more than `max_bytes`."""
    parts: list[bytes] = []
    position, size = 0, FIRST_READ_BYTES
    fd = fs.open(path)  # No File around it: a start reads four small files of each of thousands of partitions.
    try:
        while data := fs.pread(fd, size, position):
            parts.append(data)
            position += len(data)
            if position > max_bytes:
                raise FileTooLargeError(f"{path} has more than the {max_bytes:,} bytes that it can have")
            size = READ_AT_ONCE_BYTES
    finally:
        fs.close(fd)
    return b"".join(parts)


def replace_file(fs: Fs, path: str, data: bytes, sync: bool = True) -> None:
    """Write a file so that a crash leaves the old or the new content, never a mixture.

    Without `sync` the new content survives a crash of the process, not one of the machine.
    """
    temporary = path + ".tmp"
    file = File(fs, temporary, create=True)
    file.truncate(0)
    file.write(data, 0)
    if sync:
        file.sync()
    fs.rename(temporary, path)
    if sync:
        fs.sync_dir(os.path.dirname(path))


def remove_tree(fs: Fs, path: str) -> None:
    """Remove a partition directory and its files; what is already gone does not matter."""
    for name in fs.list(path):
        remove_if_exists(fs, f"{path}/{name}")
    fs.rmdir(path)


def remove_if_exists(fs: Fs, path: str) -> None:
    try:
        fs.remove(path)
    except FileNotFoundError:
        return
