"""What a check of data on disk says: one finding for each thing that is not as it should be."""

import os
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from kpy.storage.fs import OsFs


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """Records are damaged, missing or out of reach, or a broker refuses to start on them."""
    WARNING = "warning"
    """Something beside the records is damaged or missing; records are what it can be made anew from."""
    NOTE = "note"
    """Nothing is wrong; worth knowing."""


class Finding(NamedTuple):
    """One thing that was found at a byte `position` of a file, or about the whole of it.

    `repair` makes it right without touching records, and returns what it did. It is None where nothing can or need be
    done.
    """

    severity: Severity
    path: str
    position: int | None
    what: str
    outcome: str = ""
    """What happens to it when a broker starts or serves."""
    repair: Callable[[], str] | None = None


class ReadOnlyFs(OsFs):
    """The real disk for those who only look: files are opened for reading, and nothing is created."""

    def open(self, path: str, create: bool = False) -> int:
        assert not create, "whoever only looks creates nothing"
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
