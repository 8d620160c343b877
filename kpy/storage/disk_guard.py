"""One place where a log's disk work hands over what goes wrong."""

from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from kpy.errors import ApiError, ErrorCode
from kpy.storage.checkpoints import TopicPartition
from kpy.storage.index import CorruptIndexError
from kpy.storage.scan import CorruptBatchError

DiskError = OSError | CorruptBatchError | CorruptIndexError


class DiskGuard:
    """`with guard:` hands a DiskError raised inside to `fail`; `on_error` takes the log's directory offline.

    It does not know its log: that would be a circle, and keep the memory and the descriptors of a deleted log until the
    garbage collector comes by, which never looks at what was there when the broker started (cli/start.py).
    """

    __slots__ = ("_partition", "on_error")

    def __init__(self, partition: TopicPartition, on_error: Callable[[OSError], None]) -> None:
        self._partition = partition
        self.on_error = on_error

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, DiskError):
            self.fail(error)

    def fail(self, error: DiskError) -> NoReturn:
        """Answer for damaged bytes, which concern those who want them; or for a disk that fails, which goes offline."""
        if not isinstance(error, OSError):
            raise ApiError(ErrorCode.CORRUPT_MESSAGE, str(error)) from error
        self.on_error(error)
        topic, index = self._partition
        raise ApiError(
            ErrorCode.KAFKA_STORAGE_ERROR, f"The disk failed under {topic}-{index}: {error.strerror}"
        ) from error
