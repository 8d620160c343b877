"""Segment files that get their full size at once (topic config preallocate; Kafka class FileRecords).

What is not used is cut off again when the segment is rolled or closed. After a crash the zeros at its end are no batch,
and recovery cuts them off.
"""

import logging

from kpy.storage.fs import File, Fs

_log = logging.getLogger(__name__)


def preallocate(fs: Fs, file: File, path: str, size_bytes: int) -> None:
    """Reserve room for an empty file. It is a favour to the file system; one that is refused does no harm."""
    if not size_bytes:
        return
    try:
        fs.allocate(file.fileno(), 0, size_bytes)
    except OSError as error:
        _log.warning("%s is not preallocated: %s", path, error)
        file.truncate(0)


def trim(fs: Fs, path: str, size_bytes: int, sync: bool = False) -> None:
    """Cut off what lies behind the last batch."""
    if fs.size(path) > size_bytes:
        file = File(fs, path)
        file.truncate(size_bytes)
        if sync:
            file.sync()
