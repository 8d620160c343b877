"""What brokers ask of the controller for themselves: another ISR, to be relieved before they stop, producer ids.

Each operation raises ApiError: NOT_CONTROLLER where another broker is the controller, STALE_BROKER_EPOCH where the one
that asks has registered anew since, or not at all.
"""

from collections.abc import Mapping, Sequence

from kpy.controller.isr_changes import Proposal, judged
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import Cluster
from kpy.metadata.image import PartitionImage, TopicImage
from kpy.metadata.state_changes import Verdict, Verdicts, change_states

UNKNOWN_BROKER_EPOCH = -1


async def alter_partitions(
    cluster: Cluster, broker_id: int, broker_epoch: int, proposals: Mapping[str, Mapping[int, Proposal]]
) -> Verdicts:
    """Gives each leader the ISR that it asks for, if it may have it: the state as it is now, or why not.

    `proposals` are by topic and partition.
    """

    def judge(topic: str, index: int, known: PartitionImage | None) -> Verdict:
        return judged(known, proposals[topic][index], cluster.office.eligible)

    async with cluster.changing():
        _check_broker(cluster, broker_id, broker_epoch)
        return await change_states(cluster, {topic: list(asked) for topic, asked in proposals.items()}, judge)


async def relieve(cluster: Cluster, broker_id: int, broker_epoch: int) -> list[tuple[str, int]]:
    """Gives to others what a broker leads that is about to stop, and takes it out of every ISR.

    Returns the partitions it still leads because nobody else can; those without other replicas are not among them.
    Raises ApiError BROKER_NOT_AVAILABLE for a broker that is not registered.
    """
    async with cluster.changing():
        cluster.office.check_held()
        broker = cluster.stored.brokers.get(broker_id)
        if broker is None:
            raise ApiError(ErrorCode.BROKER_NOT_AVAILABLE, f"Broker id {broker_id} does not exist.")
        if broker_epoch != UNKNOWN_BROKER_EPOCH and broker_epoch < broker.epoch:
            raise ApiError(ErrorCode.STALE_BROKER_EPOCH)
        cluster.office.relieve(broker_id)
    topics: Sequence[TopicImage] = list(cluster.stored.topics.values())
    return [
        (topic.name, partition.partition)
        for topic in topics
        for partition in topic.partitions
        if partition.leader == broker_id and len(partition.replicas) > 1
    ]


async def allocate_producer_ids(cluster: Cluster, broker_id: int, broker_epoch: int) -> range:
    """A block of producer ids for a broker."""
    async with cluster.changing():
        _check_broker(cluster, broker_id, broker_epoch)
        return await cluster.producer_ids.allocate(broker_id)


def _check_broker(cluster: Cluster, broker_id: int, broker_epoch: int) -> None:
    cluster.office.check_held()
    broker = cluster.stored.brokers.get(broker_id)
    if broker is None or broker.epoch != broker_epoch:
        raise ApiError(ErrorCode.STALE_BROKER_EPOCH)
