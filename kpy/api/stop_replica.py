"""StopReplica (5), versions 0-4: the controller stops replicas of this broker, and deletes some of them.

A partition that is not here is answered without an error, since the controller repeats itself; what is left of its log
is deleted all the same. A leader epoch lower than the one known here is FENCED_LEADER_EPOCH (KIP-570).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.replica.manager import NO_EPOCH
from kpy.wire.stop_replica import (
    StopReplicaPartitionError,
    StopReplicaPartitionState,
    StopReplicaRequest,
    StopReplicaResponse,
)


def stop_replica(request: StopReplicaRequest, client: Client, broker: Broker) -> StopReplicaResponse:
    assert broker.membership is not None
    error = broker.membership.admit(request)
    if error:
        return StopReplicaResponse(error, [])
    stopped = [
        StopReplicaPartitionError(
            topic,
            state.partition_index,
            broker.replicas.stop(topic, state.partition_index, state.leader_epoch, delete=state.delete_partition),
        )
        for topic, state in _states(request, client.version)
    ]
    broker.groups.leaders_changed()
    broker.transactions.leaders_changed()
    return StopReplicaResponse(ErrorCode.NONE, stopped)


def _states(request: StopReplicaRequest, version: int) -> list[tuple[str, StopReplicaPartitionState]]:
    """(topic, partition) of all versions in the shape of the newest."""
    if version >= 3:
        return [(topic.topic_name, state) for topic in request.topic_states for state in topic.partition_states]
    named = (
        [(each.topic_name, each.partition_index) for each in request.ungrouped_partitions]
        if version == 0
        else [(topic.name, index) for topic in request.topics for index in topic.partition_indexes]
    )
    return [(topic, StopReplicaPartitionState(index, NO_EPOCH, request.delete_partitions)) for topic, index in named]
