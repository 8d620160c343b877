"""DescribeLogDirs (35), versions 0-5.

The data directories of this broker, each with the sizes of the logs in it and the size of its file system. A log that
moves into another directory is there twice: the copy is marked as the future one, and its lag is what it still misses.
A directory that has failed has an error and no logs. KIP-113, KIP-827 (sizes of file systems, version 4); version 5
tells of directories closed to new partitions, which kpy has none of.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.storage.checkpoints import TopicPartition
from kpy.storage.log_directory import LogDirectory
from kpy.storage.mover import Mover
from kpy.wire.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)


def describe_log_dirs(request: DescribeLogDirsRequest, client: Client, broker: Broker) -> DescribeLogDirsResponse:
    wanted = None
    if request.topics is not None:
        wanted = {(topic.topic, index) for topic in request.topics for index in topic.partitions}
    log_dirs = broker.replicas.log_dirs
    return DescribeLogDirsResponse(
        results=[_describe(directory, wanted, log_dirs.mover) for directory in log_dirs.directories]
    )


def _describe(directory: LogDirectory, wanted: set[TopicPartition] | None, mover: Mover) -> DescribeLogDirsResult:
    result = DescribeLogDirsResult(log_dir=directory.path)
    try:
        if directory.error is None:
            result.total_bytes, result.usable_bytes = directory.fs.space_bytes(directory.path)
    except OSError:
        # What cannot be looked at now may well be written to; that, and not this, decides whether it is offline.
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    if directory.error is not None or result.error_code:
        result.error_code = ErrorCode.KAFKA_STORAGE_ERROR
        return result
    topics: dict[str, list[DescribeLogDirsPartition]] = {}
    for logs, is_future in ((directory.logs, False), (directory.futures, True)):
        for key, log in logs.items():
            if wanted is None or key in wanted:
                lag = mover.moves[key].offset_lag if is_future else max(0, log.high_watermark - log.log_end_offset)
                topics.setdefault(key[0], []).append(DescribeLogDirsPartition(key[1], log.size_bytes, lag, is_future))
    result.topics = [DescribeLogDirsTopic(name, partitions) for name, partitions in topics.items()]
    return result
