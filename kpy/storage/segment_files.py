"""What the files of a segment are called: `<base offset><kind><suffix>`, in the directory of its log."""

from kpy.storage.fs import Fs

LOG_SUFFIX = ".log"
OFFSET_INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TXN_INDEX_SUFFIX = ".txnindex"
SUFFIXES = (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"


class SegmentFiles:
    """Where the files of one segment are. The segment and its indexes share it, so a renaming is one change.

    Paths are made when a file is opened: of each of thousands of partitions they would take more than all its offsets.
    """

    __slots__ = ("base_offset", "directory", "fs", "suffix")

    def __init__(self, fs: Fs, directory: str, base_offset: int, suffix: str = "") -> None:
        self.fs = fs
        self.directory = directory
        self.base_offset = base_offset
        self.suffix = suffix

    def path(self, kind: str = LOG_SUFFIX) -> str:
        return f"{self.directory}/{self.base_offset:020d}{kind}{self.suffix}"


def parse_base_offset(name: str) -> int | None:
    """The base offset in the name of a segment's file, whatever its suffixes; None for other files."""
    digits, _, _ = name.partition(".")
    return int(digits) if len(digits) == 20 and digits.isascii() and digits.isdigit() else None
