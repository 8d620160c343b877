"""How the replicas of a partition are moved to other brokers (KIP-455; Kafka classes ReplicaAssignment and
KafkaController.onPartitionReassignment).

While it goes on the partition has the replicas that it had and those that it gets, the target first, so that it is
never on fewer brokers than before. As soon as the whole target is in the ISR it is done: the others are taken away, and
one of the target leads. A reassignment is cancelled by one back to the origin.

Each step raises the leader epoch: all replicas have to hear of it. Assignment and state change in one transaction, so
that there is nothing in between for a controller that takes over.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage


def is_reassigned(partition: PartitionImage) -> bool:
    return bool(partition.adding or partition.removing)


def judged(
    partition: PartitionImage | None, target: Sequence[int] | None, live: Collection[int]
) -> PartitionImage | ApiError:
    """The partition on its way to the target (None: back to where it was), or why it may not go there.

    UNKNOWN_TOPIC_OR_PARTITION, NO_REASSIGNMENT_IN_PROGRESS, INVALID_REPLICA_ASSIGNMENT.
    """
    if partition is None:
        return ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")
    if target is None:
        if not is_reassigned(partition):
            return ApiError(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS)
        target = origin_of(partition)
    problem = _problem(target)
    if problem is None:
        added = sorted(set(target) - set(origin_of(partition)) - set(live))
        if added:
            problem = f"Replica assignment has brokers that are not alive. Replica list: {added}"
    if problem is not None:
        return ApiError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)
    return begun(partition, target, live)


def _problem(target: Sequence[int]) -> str | None:
    if not target:
        return "Empty replica list specified in partition reassignment."
    if len(set(target)) < len(target):
        return f"Duplicate replica ids in partition reassignment replica list: {list(target)}"
    if min(target) < 0:
        return f"Invalid broker id in replica list: {list(target)}"
    return None


def origin_of(partition: PartitionImage) -> tuple[int, ...]:
    return tuple(broker_id for broker_id in partition.replicas if broker_id not in partition.adding)


def target_of(partition: PartitionImage) -> tuple[int, ...]:
    """Where it is going; where it is, if it is not reassigned."""
    return tuple(broker_id for broker_id in partition.replicas if broker_id not in partition.removing)


def begun(partition: PartitionImage, target: Sequence[int], live: Collection[int]) -> PartitionImage | ApiError:
    """On the way to the target: those that another target than this one would have brought are given up."""
    origin = origin_of(partition)
    replicas = tuple(dict.fromkeys((*target, *origin)))
    adding = tuple(broker_id for broker_id in replicas if broker_id not in origin)
    removing = tuple(broker_id for broker_id in replicas if broker_id not in target)
    isr = tuple(broker_id for broker_id in partition.isr if broker_id in replicas)
    leader = partition.leader
    if leader not in replicas:
        leader = next((broker_id for broker_id in replicas if broker_id in isr and broker_id in live), leader)
    if not isr or leader not in (*replicas, -1):
        return ApiError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, "No replica that would stay is in sync and alive.")
    return _step(partition, replicas, adding, removing, leader, isr)


def completed(partition: PartitionImage, live: Collection[int]) -> PartitionImage | None:
    """With the target alone, if all of it is in sync and one of it can lead."""
    target = target_of(partition)
    if not is_reassigned(partition) or not set(target) <= set(partition.isr):
        return None
    leader = partition.leader
    if leader not in target:
        leader = next((broker_id for broker_id in target if broker_id in live), -1)
    if leader < 0:
        return None
    isr = tuple(broker_id for broker_id in partition.isr if broker_id in target)
    return _step(partition, target, (), (), leader, isr)


def _step(
    partition: PartitionImage,
    replicas: tuple[int, ...],
    adding: tuple[int, ...],
    removing: tuple[int, ...],
    leader: int,
    isr: tuple[int, ...],
) -> PartitionImage:
    return replace(
        partition,
        replicas=replicas,
        adding=adding,
        removing=removing,
        leader=leader,
        isr=isr,
        leader_epoch=partition.leader_epoch + 1,
        partition_epoch=partition.partition_epoch + 1,
    )
