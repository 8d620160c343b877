"""What brokers ask of the controller for themselves: another ISR, to be relieved before they stop, producer ids.

Each operation raises ApiError: NOT_CONTROLLER where another broker is the controller, STALE_BROKER_EPOCH where the one
that asks has registered anew since, or not at all.
"""

from collections.abc import Mapping, Sequence

from kpy.controller.isr_changes import Proposal, judged
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import MAX_ATTEMPTS, Cluster
from kpy.metadata.image import PartitionImage, TopicImage
from kpy.metadata.store import StoreError, StoreUnavailable

UNKNOWN_BROKER_EPOCH = -1

Verdict = PartitionImage | ErrorCode


async def alter_partitions(
    cluster: Cluster, broker_id: int, broker_epoch: int, proposals: Mapping[str, Mapping[int, Proposal]]
) -> dict[str, dict[int, Verdict]]:
    """Gives each leader the ISR that it asks for, if it may have it: the state as it is now, or why not.

    `proposals` are by topic and partition.
    """
    verdicts: dict[str, dict[int, Verdict]] = {}
    async with cluster.changing():
        _check_broker(cluster, broker_id, broker_epoch)
        for name, asked in proposals.items():
            verdicts[name] = await _alter_topic(cluster, name, asked)
    return verdicts


async def _alter_topic(cluster: Cluster, name: str, asked: Mapping[int, Proposal]) -> dict[int, Verdict]:
    for _ in range(MAX_ATTEMPTS):
        topic = cluster.stored.topics.get(name)
        known = {each.partition: each for each in topic.partitions} if topic is not None else {}
        verdicts = {
            index: judged(known.get(index), proposal, cluster.office.is_eligible) for index, proposal in asked.items()
        }
        changed = [
            verdict
            for index, verdict in verdicts.items()
            if isinstance(verdict, PartitionImage) and verdict is not known[index]
        ]
        if not changed:
            return verdicts
        try:
            await cluster.office.change_states(name, changed)
            return verdicts
        except StoreUnavailable:
            raise
        except StoreError:
            # Somebody has changed one of them behind the controller's back.
            await cluster.read_again(name)
    return dict.fromkeys(asked, ErrorCode.INVALID_UPDATE_VERSION)


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
