"""DeleteRecords (21), versions 0-2.

Moves the start of a partition's log up to an offset, or to the high watermark for -1, and answers with where it is
then. What lies below cannot be read any more; its segments go with the next retention check. An offset below the
present start changes nothing. KIP-107.

Deviation: the new start is on the disk before the answer leaves, so no crash brings the records back. Apache Kafka
writes it a minute later.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import INTERNAL_TOPICS
from kpy.errors import ApiError, ErrorCode
from kpy.wire.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

HIGH_WATERMARK = -1
INVALID_LOW_WATERMARK = -1


async def delete_records(request: DeleteRecordsRequest, client: Client, broker: Broker) -> DeleteRecordsResponse:
    # The last one counts of what is named twice, as in Apache Kafka.
    wanted = {topic.name: {each.partition_index: each.offset for each in topic.partitions} for topic in request.topics}
    topics = [
        DeleteRecordsTopicResult(name, [_delete(name, index, offset, broker) for index, offset in partitions.items()])
        for name, partitions in wanted.items()
        if partitions
    ]
    await broker.replicas.save_log_start_offsets()
    for topic in topics:
        for result in topic.partitions:
            if not result.error_code and broker.replicas.is_offline(topic.name, result.partition_index):
                result.error_code, result.low_watermark = ErrorCode.KAFKA_STORAGE_ERROR, INVALID_LOW_WATERMARK
    return DeleteRecordsResponse(topics=topics)


def _delete(topic: str, index: int, offset: int, broker: Broker) -> DeleteRecordsPartitionResult:
    try:
        log = broker.replicas.partition(topic, index).log
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
    return DeleteRecordsPartitionResult(index, log.log_start_offset)
