"""Who leads a partition, and who is in its ISR, after brokers have come or gone (Kafka class Election).

Each function takes a partition as it is and the brokers that live, and returns the partition as it is to be, with the
next leader epoch, or None where nothing is to change. A broker outside the ISR may lack acknowledged records, so it
leads only where the topic allows unclean elections.
"""

from collections.abc import Collection
from dataclasses import replace

from kpy.metadata.image import NO_LEADER, NO_STATE, PartitionImage


def first_leader(partition: PartitionImage, live: Collection[int]) -> PartitionImage | None:
    """The first state of a new partition: its first live replica leads, and all live ones are in the ISR.

    Without a live replica it stays as it is, and gets its state when the first of its brokers comes.
    """
    isr = tuple(broker_id for broker_id in partition.replicas if broker_id in live)
    if partition.partition_epoch != NO_STATE or not isr:
        return None
    return replace(partition, leader=isr[0], leader_epoch=0, isr=isr, partition_epoch=0)


def after_failure(partition: PartitionImage, live: Collection[int], *, unclean: bool) -> PartitionImage | None:
    """A leader that lives, and an ISR of brokers that live.

    Where no leader can be elected the partition has none, and the last member of the ISR stays in it: it alone is known
    to have every acknowledged record.
    """
    if partition.partition_epoch == NO_STATE:
        return None
    in_sync = tuple(broker_id for broker_id in partition.isr if broker_id in live)
    if partition.leader in live:
        return None if in_sync == partition.isr else _next(partition, partition.leader, in_sync)
    for broker_id in partition.replicas:
        if broker_id in in_sync:
            return _next(partition, broker_id, in_sync)
    if unclean:
        for broker_id in partition.replicas:
            if broker_id in live:
                return replace(_next(partition, broker_id, (broker_id,)), recovering=True)
    if partition.leader == NO_LEADER:
        return None
    return _next(partition, NO_LEADER, in_sync or partition.isr[-1:])


def before_shutdown(partition: PartitionImage, live: Collection[int], leaving: frozenset[int]) -> PartitionImage | None:
    """Without the brokers that are about to stop: another leader, if one in the ISR stays, and an ISR without them.

    A partition with one replica stays with its broker to the end.
    """
    if partition.partition_epoch == NO_STATE or len(partition.replicas) == 1 or leaving.isdisjoint(partition.isr):
        return None
    staying = tuple(broker_id for broker_id in partition.isr if broker_id not in leaving)
    if partition.leader not in leaving:
        return _next(partition, partition.leader, staying)
    leader = next((each for each in partition.replicas if each in staying and each in live), None)
    return None if leader is None else _next(partition, leader, staying)


def preferred_leader(partition: PartitionImage, live: Collection[int]) -> PartitionImage | None:
    """Led by its first replica, if that is in sync and does not lead already."""
    preferred = partition.replicas[0] if partition.replicas else NO_LEADER
    if partition.leader == preferred or preferred not in live or preferred not in partition.isr:
        return None
    return _next(partition, preferred, partition.isr)


def _next(partition: PartitionImage, leader: int, isr: tuple[int, ...]) -> PartitionImage:
    return replace(
        partition,
        leader=leader,
        leader_epoch=partition.leader_epoch + 1,
        isr=isr,
        partition_epoch=partition.partition_epoch + 1,
    )
