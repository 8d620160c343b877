"""DeleteRecords (21), versions 0-2.

Moves the start of a partition's log up to an offset, or to the high watermark for -1, and answers with the low
watermark, below which no live replica has records any more. Where there are followers it waits until that has reached
the offset, `timeout_ms` at most; partitions that are late are told REQUEST_TIMED_OUT, and lose their records all the
same. What lies below cannot be read any more; its segments go with the next retention check. An offset below the
present start changes nothing. KIP-107.

Deviation: the new start is on the leader's disk before the answer leaves, so no crash of it brings the records back.
Apache Kafka writes it a minute later.
"""

from dataclasses import dataclass

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import INTERNAL_TOPICS
from kpy.errors import ApiError, ErrorCode
from kpy.replica.partition import Partition
from kpy.wire.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

HIGH_WATERMARK = -1
INVALID_LOW_WATERMARK = -1


@dataclass(slots=True)
class Deleted:
    """What this broker has deleted of one partition, and the result that says so."""

    partition: Partition
    offset: int
    result: DeleteRecordsPartitionResult


async def delete_records(request: DeleteRecordsRequest, client: Client, broker: Broker) -> DeleteRecordsResponse:
    # The last one counts of what is named twice, as in Apache Kafka.
    wanted = {topic.name: {each.partition_index: each.offset for each in topic.partitions} for topic in request.topics}
    deleted: list[Deleted] = []
    topics = [
        DeleteRecordsTopicResult(
            name, [_delete(name, index, offset, broker, deleted) for index, offset in partitions.items()]
        )
        for name, partitions in wanted.items()
        if partitions
    ]
    await broker.replicas.save_log_start_offsets()
    late = [each for each in deleted if _settle(each) is ErrorCode.REQUEST_TIMED_OUT]
    if late:
        await _wait_for_followers(late, request.timeout_ms)
    return DeleteRecordsResponse(topics=topics)


def _delete(
    topic: str, index: int, offset: int, broker: Broker, deleted: list[Deleted]
) -> DeleteRecordsPartitionResult:
    try:
        partition = broker.replicas.partition(topic, index)
        log = partition.log
        if topic in INTERNAL_TOPICS:
            raise ApiError(ErrorCode.INVALID_TOPIC_EXCEPTION)
        if not log.config.is_deleted:
            raise ApiError(ErrorCode.POLICY_VIOLATION)
        target = log.high_watermark if offset == HIGH_WATERMARK else offset
        if target < 0:
            raise ApiError(ErrorCode.OFFSET_OUT_OF_RANGE)
        log.advance_log_start_offset(target)
    except ApiError as error:
        return DeleteRecordsPartitionResult(index, INVALID_LOW_WATERMARK, error.code)
    result = DeleteRecordsPartitionResult(index)
    deleted.append(Deleted(partition, target, result))
    return result


def _settle(deleted: Deleted) -> ErrorCode:
    """Fill in the result as things are now: REQUEST_TIMED_OUT while the low watermark has not reached the offset."""
    result = deleted.result
    try:
        if deleted.partition.log.is_offline:
            raise ApiError(ErrorCode.KAFKA_STORAGE_ERROR)
        result.low_watermark = deleted.partition.low_watermark()
    except ApiError as error:
        result.low_watermark, result.error_code = INVALID_LOW_WATERMARK, error.code
        return error.code
    error_code = ErrorCode.REQUEST_TIMED_OUT if result.low_watermark < deleted.offset else ErrorCode.NONE
    result.error_code = error_code
    return error_code


async def _wait_for_followers(late: list[Deleted], timeout_ms: int) -> None:
    """Until the low watermark of each has reached its offset, or it has none here any more, or the time is over."""
    all_told = trio.Event()
    left = len(late)

    def told(error: ErrorCode) -> None:
        nonlocal left
        left -= 1
        if not left:
            all_told.set()

    waits = [(each.partition, each.partition.when_deleted(each.offset, told)) for each in late]
    with trio.move_on_after(max(0, timeout_ms) / 1000):
        await all_told.wait()
    for (partition, deletion), each in zip(waits, late, strict=True):
        partition.forget_deletion(deletion)
        _settle(each)
