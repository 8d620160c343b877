"""LeaderAndIsr (4), versions 0-7: the controller says which partitions this broker leads and which it follows.

Each partition is answered on its own (replica/manager.py, `become`); STALE_CONTROLLER_EPOCH for a role that is known
already is what a controller expects when it repeats itself. A request from the past is refused as a whole. Coordinators
hear of their partitions before the answer leaves. KIP-380 (broker epochs), KIP-497 (partition epochs), KIP-516 (ids).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.ids import ZERO_ID
from kpy.metadata.image import PartitionImage
from kpy.wire.leader_and_isr import (
    LeaderAndIsrPartitionError,
    LeaderAndIsrPartitionState,
    LeaderAndIsrRequest,
    LeaderAndIsrResponse,
    LeaderAndIsrTopicError,
    LeaderAndIsrTopicState,
)

FIRST_VERSION_BY_TOPIC = 2
FIRST_VERSION_ANSWERED_BY_ID = 5


def leader_and_isr(request: LeaderAndIsrRequest, client: Client, broker: Broker) -> LeaderAndIsrResponse:
    assert broker.membership is not None
    error = broker.membership.admit(request)
    topics = request.topic_states if client.version >= FIRST_VERSION_BY_TOPIC else _grouped(request)
    answers: list[LeaderAndIsrTopicError] = []
    by_name: list[LeaderAndIsrPartitionError] = []
    for topic in topics:
        errors = [
            LeaderAndIsrPartitionError(topic.topic_name, state.partition_index, error or _become(topic, state, broker))
            for state in topic.partition_states
        ]
        by_name += errors
        answers.append(LeaderAndIsrTopicError(topic.topic_id, errors))
    if error == ErrorCode.NONE:
        broker.groups.leaders_changed()
        broker.transactions.leaders_changed()
    if client.version >= FIRST_VERSION_ANSWERED_BY_ID:
        return LeaderAndIsrResponse(error, topics=answers)
    return LeaderAndIsrResponse(error, by_name)


def _become(topic: LeaderAndIsrTopicState, state: LeaderAndIsrPartitionState, broker: Broker) -> ErrorCode:
    image = PartitionImage(
        state.partition_index,
        state.leader,
        state.leader_epoch,
        tuple(state.replicas),
        tuple(state.isr),
        state.partition_epoch,
    )
    return broker.replicas.become(topic.topic_name, topic.topic_id, image, is_new=state.is_new)


def _grouped(request: LeaderAndIsrRequest) -> list[LeaderAndIsrTopicState]:
    """The oldest versions name the topic with each partition."""
    return [LeaderAndIsrTopicState(state.topic_name, ZERO_ID, [state]) for state in request.ungrouped_partition_states]
