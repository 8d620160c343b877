"""OffsetForLeaderEpoch (23), versions 0-4.

Where an epoch ends in the leader's log: the largest known epoch up to the one that is asked for, and its end offset. A
consumer whose position lies behind that end has read what the log no longer holds (KIP-320); a follower truncates there
(KIP-101, KIP-279). An epoch above the latest is answered with epoch and offset -1 and no error.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError
from kpy.wire.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)


def offset_for_leader_epoch(
    request: OffsetForLeaderEpochRequest, client: Client, broker: Broker
) -> OffsetForLeaderEpochResponse:
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(topic.topic, [_answer(topic.topic, asked, broker) for asked in topic.partitions])
            for topic in request.topics
        ]
    )


def _answer(topic: str, asked: OffsetForLeaderPartition, broker: Broker) -> EpochEndOffset:
    try:
        partition = broker.replicas.partition(topic, asked.partition)
        partition.check_leader_epoch(asked.current_leader_epoch)
    except ApiError as error:
        return EpochEndOffset(error.code, asked.partition)
    log = partition.log
    leader_epoch, end_offset = log.leader_epochs.end_offset_for(asked.leader_epoch, log.log_end_offset)
    return EpochEndOffset(partition=asked.partition, leader_epoch=leader_epoch, end_offset=end_offset)
