"""AlterPartition (56), versions 2-3: a leader asks the controller for another ISR of its partitions.

Each partition is answered with the state that it has by then, or with why it may not (controller/isr_changes.py).
Errors of the whole request: NOT_CONTROLLER, STALE_BROKER_EPOCH. Without KRaft the epochs of the replicas that version 3
names are -1 and count for nothing. KIP-497, KIP-841, KIP-903. Versions 0 and 1, which name topics instead of giving
their ids, no broker has sent since Apache Kafka 3.2.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.isr_changes import Proposal
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.asked_by_brokers import alter_partitions
from kpy.metadata.state_changes import Verdict
from kpy.wire.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    RequestPartitionData,
    ResponsePartitionData,
    ResponseTopicData,
)

FIRST_VERSION_WITH_EPOCHS = 3


async def alter_partition(request: AlterPartitionRequest, client: Client, broker: Broker) -> AlterPartitionResponse:
    names = broker.cluster.stored.topic_names
    version = client.version
    proposals = {
        names[topic.topic_id]: {each.partition_index: _proposal(each, version) for each in topic.partitions}
        for topic in request.topics
        if topic.topic_id in names
    }
    try:
        verdicts = await alter_partitions(broker.cluster, request.broker_id, request.broker_epoch, proposals)
    except ApiError as error:
        return AlterPartitionResponse(error_code=error.code)
    topics: list[ResponseTopicData] = []
    for topic in request.topics:
        judged = verdicts.get(names.get(topic.topic_id, ""), {})
        answers = [
            _answer(each.partition_index, judged.get(each.partition_index, ApiError(ErrorCode.UNKNOWN_TOPIC_ID)))
            for each in topic.partitions
        ]
        topics.append(ResponseTopicData(topic_id=topic.topic_id, partitions=answers))
    return AlterPartitionResponse(topics=topics)


def _proposal(asked: RequestPartitionData, version: int) -> Proposal:
    isr = asked.new_isr
    if version >= FIRST_VERSION_WITH_EPOCHS:
        isr = [replica.broker_id for replica in asked.new_isr_with_epochs]
    return Proposal(asked.leader_epoch, asked.partition_epoch, tuple(isr), bool(asked.leader_recovery_state))


def _answer(index: int, verdict: Verdict) -> ResponsePartitionData:
    if isinstance(verdict, ApiError):
        return ResponsePartitionData(index, verdict.code)
    return ResponsePartitionData(
        partition_index=index,
        leader_id=verdict.leader,
        leader_epoch=verdict.leader_epoch,
        isr=list(verdict.isr),
        leader_recovery_state=int(verdict.recovering),
        partition_epoch=verdict.partition_epoch,
    )
