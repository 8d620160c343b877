"""DescribeProducers (61), version 0.

Who writes to partitions: every producer that the leader remembers, with its epoch, its last sequence number and where
its open transaction began, from which tools find transactions that nobody will ever end. KIP-664.

Deviations: none.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import name_error
from kpy.errors import ApiError, ErrorCode
from kpy.wire.describe_producers import (
    DescribeProducersRequest,
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)


def describe_producers(request: DescribeProducersRequest, client: Client, broker: Broker) -> DescribeProducersResponse:
    return DescribeProducersResponse(
        topics=[
            TopicResponse(topic.name, [_describe(topic.name, index, broker) for index in topic.partition_indexes])
            for topic in request.topics
        ]
    )


def _describe(topic: str, index: int, broker: Broker) -> PartitionResponse:
    reason = name_error(topic)
    if reason is not None:
        return PartitionResponse(index, ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {reason}")
    try:
        state = broker.replicas.partition(topic, index).log.producer_state
    except ApiError as error:
        return PartitionResponse(index, error.code, error.message)
    return PartitionResponse(
        partition_index=index,
        active_producers=[
            ProducerState(
                producer_id=each.producer_id,
                producer_epoch=each.epoch,
                last_sequence=each.last_sequence,
                last_timestamp=each.last_timestamp,
                coordinator_epoch=each.coordinator_epoch,
                current_txn_start_offset=each.current_txn_first_offset,
            )
            for each in state.producers.values()
        ],
    )
