"""Elections that somebody asks for, or that even out who leads (KIP-183, KIP-460; Kafka class KafkaController)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kpy.controller.elections import after_failure, preferred_leader
from kpy.controller.reassignments import is_reassigned
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import Cluster
from kpy.metadata.image import PartitionImage
from kpy.metadata.state_changes import Judge, Verdict, Verdicts, change_states


async def elect_leaders(cluster: Cluster, partitions: Mapping[str, Sequence[int]], *, unclean: bool) -> Verdicts:
    """Gives partitions their preferred leader; or, `unclean`, any leader at all to those that have none.

    Why not: ELECTION_NOT_NEEDED, PREFERRED_LEADER_NOT_AVAILABLE, ELIGIBLE_LEADERS_NOT_AVAILABLE,
    UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION (the topic is being deleted). Raises ApiError NOT_CONTROLLER.
    """
    judge = _judge_unclean(cluster) if unclean else _judge_preferred(cluster)
    refusal = ApiError(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic is being deleted")
    async with cluster.changing():
        cluster.office.check_held()
        asked = {topic: indexes for topic, indexes in partitions.items() if not cluster.office.is_deleted(topic)}
        verdicts = await change_states(cluster, asked, judge)
    return {topic: verdicts.get(topic) or dict.fromkeys(indexes, refusal) for topic, indexes in partitions.items()}


def _judge_preferred(cluster: Cluster) -> Judge:
    def judge(_: str, index: int, known: PartitionImage | None) -> Verdict:
        if known is None:
            return _unknown()
        if known.leader == known.replicas[0]:
            return ApiError(ErrorCode.ELECTION_NOT_NEEDED)
        elected = preferred_leader(known, cluster.office.eligible)
        return elected or ApiError(
            ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE,
            f"Broker {known.replicas[0]}, which is preferred, is away or not in sync.",
        )

    return judge


def _judge_unclean(cluster: Cluster) -> Judge:
    def judge(_: str, index: int, known: PartitionImage | None) -> Verdict:
        if known is None:
            return _unknown()
        eligible = cluster.office.eligible
        if known.leader in eligible:
            return ApiError(ErrorCode.ELECTION_NOT_NEEDED)
        elected = after_failure(known, eligible, unclean=True)
        return elected or ApiError(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, "None of the replicas is alive.")

    return judge


def _unknown() -> ApiError:
    return ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The partition does not exist.")


async def start_leader_epochs(cluster: Cluster, broker_id: int) -> None:
    """Raises the leader epoch of every partition that this broker leads, after its logs were not closed cleanly.

    That is the controller's to do. If another broker is it, it has seen this one go, and has raised them.
    """

    def judge(_: str, index: int, known: PartitionImage | None) -> Verdict:
        if known is None or known.leader != broker_id:
            return known or _unknown()
        return replace(known, leader_epoch=known.leader_epoch + 1, partition_epoch=known.partition_epoch + 1)

    async with cluster.changing():
        if cluster.is_controller:
            topics = cluster.stored.topics.values()
            await change_states(cluster, {topic.name: range(len(topic.partitions)) for topic in topics}, judge)


async def even_out(cluster: Cluster, percentage: int) -> None:
    """Gives back to each broker what it is preferred for, if others lead more of that than this percentage.

    Only the controller does anything.
    """
    async with cluster.changing():
        if not cluster.is_controller:
            return
        await change_states(cluster, _misplaced(cluster, percentage), _judge_preferred(cluster))


def _misplaced(cluster: Cluster, percentage: int) -> dict[str, list[int]]:
    preferred: dict[int, int] = defaultdict(int)
    misplaced: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for topic in cluster.stored.topics.values():
        if cluster.office.is_deleted(topic.name):
            continue
        for partition in topic.partitions:
            broker_id = partition.replicas[0]
            preferred[broker_id] += 1
            if partition.leader != broker_id and not is_reassigned(partition):
                misplaced[broker_id].append((topic.name, partition.partition))
    moved: dict[str, list[int]] = defaultdict(list)
    for broker_id, partitions in misplaced.items():
        if 100 * len(partitions) > percentage * preferred[broker_id]:
            for topic_name, index in partitions:
                moved[topic_name].append(index)
    return moved
