"""Whether a range of a file is in the page cache, so that reading it does not wait for the disk.

cachestat(2), Linux 6.5 and later, counts the cached pages of any range in about 1.5 us. An older kernel is asked to
read the range without waiting (preadv with RWF_NOWAIT), which copies it: 70 to 120 us for a megabyte, and has the
kernel fetch what is missing, so that the next answer may be another. A byte here and there would not do, since pages
are reclaimed one by one, and mincore(2) needs a mapping: 40 us for a megabyte.
"""

import ctypes
import errno
import mmap
import os

CACHESTAT = 451
"""The number of the system call, the same on all architectures."""

_PAGE = mmap.PAGESIZE
_SCRATCH_BYTES = 1 << 20

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
_syscall.restype = ctypes.c_long

# Reused, because making them anew costs more than the system call. All who ask are in one thread.
_range = (ctypes.c_uint64 * 2)()
"""Offset and length."""
_counts = (ctypes.c_uint64 * 5)()
"""Pages in the cache, then the dirty, those under writeback, and two kinds of evicted ones."""
_range_address, _counts_address = ctypes.addressof(_range), ctypes.addressof(_counts)
_scratch = bytearray()


def holds(fd: int, position: int, size: int) -> bool:
    """Whether all of the range, which lies in the file, is there. A file system that cannot tell counts as memory."""
    _range[0], _range[1] = position, size
    if _syscall(CACHESTAT, fd, _range_address, _counts_address, 0) == 0:
        return _counts[0] >= (position + size - 1) // _PAGE - position // _PAGE + 1
    # EPERM is how some containers say that they do not know a system call.
    if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        return can_be_read_at_once(fd, position, size)
    return True


def can_be_read_at_once(fd: int, position: int, size: int) -> bool:
    """The same by reading."""
    _scratch.extend(bytes(_SCRATCH_BYTES - len(_scratch)))
    end = position + size
    while position < end:
        with memoryview(_scratch)[: end - position] as wanted:
            try:
                read = os.preadv(fd, [wanted], position, os.RWF_NOWAIT)
            except OSError as error:
                return error.errno != errno.EAGAIN
            if read < len(wanted):
                return False
        position += read
    return True
