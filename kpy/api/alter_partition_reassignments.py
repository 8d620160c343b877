"""AlterPartitionReassignments (45), version 0: replicas move to other brokers, or stay after all.

Answers when the moves have begun; ListPartitionReassignments shows those that go on. Each partition has its own answer
(kpy/controller/reassignments.py). Only the controller moves replicas; other brokers answer NOT_CONTROLLER. KIP-455.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.partition_reassignments import reassign
from kpy.metadata.state_changes import Verdict
from kpy.wire.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)


async def alter_partition_reassignments(
    request: AlterPartitionReassignmentsRequest, client: Client, broker: Broker
) -> AlterPartitionReassignmentsResponse:
    topics = {
        topic.name: {each.partition_index: each.replicas for each in topic.partitions} for topic in request.topics
    }
    try:
        verdicts = await reassign(broker.cluster, topics)
    except ApiError as error:
        return AlterPartitionReassignmentsResponse(error_code=error.code, error_message=error.message)
    return AlterPartitionReassignmentsResponse(
        error_message=None,
        responses=[
            ReassignableTopicResponse(topic, [_answer(index, verdict) for index, verdict in judged.items()])
            for topic, judged in verdicts.items()
        ],
    )


def _answer(index: int, verdict: Verdict) -> ReassignablePartitionResponse:
    if isinstance(verdict, ApiError):
        return ReassignablePartitionResponse(index, verdict.code, verdict.message)
    return ReassignablePartitionResponse(index, ErrorCode.NONE, None)
