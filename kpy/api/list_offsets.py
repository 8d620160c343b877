"""ListOffsets (2), versions 0-10.

Finds the offset for a timestamp, or one of the special ones. A timestamp that no committed record reaches is answered
with timestamp and offset -1 and no error. Version 0 answers with the base offsets of segments, newest first. Version
4 adds leader epochs (KIP-320), 7 the record with the largest timestamp (KIP-734), 8 the local log start (KIP-405), 9
the tiered end (KIP-1005: there is no tiered storage, so -1), 10 a timeout for remote look-ups, which kpy has none of.
A leader that has just been elected does not know yet how far its predecessor had committed: until its own epoch begins
to be committed, consumers that ask for the end are told OFFSET_NOT_AVAILABLE (KIP-207).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.replica.partition import Partition
from kpy.wire.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
READ_COMMITTED = 1
FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE = 5

FIRST_VERSION_OF = {LATEST: 0, EARLIEST: 0, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}

Found = tuple[int, int, int]
"""Timestamp, offset, leader epoch."""

NOT_FOUND: Found = (-1, -1, -1)


def list_offsets(request: ListOffsetsRequest, client: Client, broker: Broker) -> ListOffsetsResponse:
    asked = [(topic.name, wanted.partition_index) for topic in request.topics for wanted in topic.partitions]
    twice = {key for key in asked if asked.count(key) > 1} if len(set(asked)) < len(asked) else set[tuple[str, int]]()
    topics: list[ListOffsetsTopicResponse] = []
    for topic in request.topics:
        answers: list[ListOffsetsPartitionResponse] = []
        for wanted in topic.partitions:
            if (topic.name, wanted.partition_index) in twice and client.version > 0:
                answers.append(ListOffsetsPartitionResponse(wanted.partition_index, ErrorCode.INVALID_REQUEST))
            else:
                answers.append(_answer(topic.name, wanted, request, client.version, broker))
        topics.append(ListOffsetsTopicResponse(topic.name, answers))
    return ListOffsetsResponse(topics=topics)


def _answer(
    topic: str, wanted: ListOffsetsPartition, request: ListOffsetsRequest, version: int, broker: Broker
) -> ListOffsetsPartitionResponse:
    index = wanted.partition_index
    try:
        partition = broker.replicas.partition(topic, index)
        partition.check_leader_epoch(wanted.current_leader_epoch)
        if wanted.timestamp < 0 and version < FIRST_VERSION_OF.get(wanted.timestamp, version + 1):
            raise ApiError(ErrorCode.UNSUPPORTED_VERSION)
        if version == 0:
            offsets = _segment_offsets(partition, wanted.timestamp, wanted.max_num_offsets)
            return ListOffsetsPartitionResponse(index, ErrorCode.NONE, old_style_offsets=offsets)
        timestamp, offset, leader_epoch = _find(partition, wanted.timestamp, _end_for(request, partition))
        needs_end = wanted.timestamp == LATEST or (wanted.timestamp >= 0 and offset < 0)
        if needs_end and request.replica_id < 0 and partition.led().epoch_start_offset > partition.high_watermark:
            knows_error = version >= FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE
            raise ApiError(ErrorCode.OFFSET_NOT_AVAILABLE if knows_error else ErrorCode.LEADER_NOT_AVAILABLE)
    except ApiError as error:
        return ListOffsetsPartitionResponse(index, error.code)
    return ListOffsetsPartitionResponse(
        partition_index=index, timestamp=timestamp, offset=offset, leader_epoch=leader_epoch
    )


def _end_for(request: ListOffsetsRequest, partition: Partition) -> int:
    """Where the log ends for whoever asks: followers know what is not committed yet."""
    if request.replica_id >= 0:
        return partition.log.log_end_offset
    is_committed_only = request.isolation_level == READ_COMMITTED
    return partition.last_stable_offset if is_committed_only else partition.high_watermark


def _find(partition: Partition, timestamp: int, end: int) -> Found:
    log = partition.log
    if timestamp == LATEST:
        return -1, end, partition.leader_epoch
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return -1, log.log_start_offset, log.leader_epochs.epoch_for(log.log_start_offset)
    if timestamp == LATEST_TIERED:
        return NOT_FOUND
    found = log.max_timestamp() if timestamp == MAX_TIMESTAMP else log.offset_for_timestamp(timestamp)
    return NOT_FOUND if found is None or found[1] >= end else found


def _segment_offsets(partition: Partition, timestamp: int, max_offsets: int) -> list[int]:
    """Version 0's answer: the end and the segment starts at or below it, newest first (LATEST), or those written
    before.
    """
    log = partition.log
    if timestamp == EARLIEST:
        return [log.log_start_offset][:max_offsets]
    starts = [offset for offset in log.segment_base_offsets() if offset < log.high_watermark]
    if timestamp != LATEST:
        found = log.offset_for_timestamp(timestamp)
        limit = log.high_watermark if found is None else found[1]
        return [offset for offset in reversed(starts) if offset < limit][:max_offsets]
    return [log.high_watermark, *reversed(starts)][:max_offsets]
