"""One place where a log's disk work hands over what goes wrong."""

from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from kpy.storage.index import CorruptIndexError
from kpy.storage.scan import CorruptBatchError

DiskError = OSError | CorruptBatchError | CorruptIndexError


class DiskGuard:
    """`with guard:` hands a DiskError raised inside to `fail`, which raises the ApiError that a client is to see."""

    __slots__ = ("_fail",)

    def __init__(self, fail: Callable[[DiskError], NoReturn]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DiskError):
            self._fail(error)
