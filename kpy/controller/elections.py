"""Who leads a partition, and who is in its ISR, after brokers have come or gone (Kafka class Election).

Each function takes a partition as it is and the brokers that live, and returns the partition as it is to be, with the
next leader epoch, or None where nothing is to change. A broker outside the ISR may lack acknowledged records, so it
leads only where the topic allows unclean elections.
"""

from collections.abc import Collection
from dataclasses import replace

from kpy.metadata.image import NO_LEADER, NO_STATE, PartitionImage


def first_leader(partition: PartitionImage, live: Collection[int]) -> PartitionImage | None:
    """The first state of a new partition: its first live replica leads.

    Without a live replica it stays as it is, and gets its state when the first of its brokers comes. Apache Kafka puts
    all live replicas into the first ISR. Here the leader is alone in it, because followers do not fetch yet: a member
    of the ISR may be elected, and is promised to have every acknowledged record.
    """
    leader = next((broker_id for broker_id in partition.replicas if broker_id in live), None)
    if partition.partition_epoch != NO_STATE or leader is None:
        return None
    return replace(partition, leader=leader, leader_epoch=0, isr=(leader,), partition_epoch=0)


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


def _next(partition: PartitionImage, leader: int, isr: tuple[int, ...]) -> PartitionImage:
    return replace(
        partition,
        leader=leader,
        leader_epoch=partition.leader_epoch + 1,
        isr=isr,
        partition_epoch=partition.partition_epoch + 1,
    )
