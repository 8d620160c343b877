"""Moves of replicas that somebody asks for; kpy/controller/reassignments.py says what they are (KIP-455)."""

from collections.abc import Mapping, Sequence

from kpy.controller.reassignments import judged
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import Cluster
from kpy.metadata.image import PartitionImage
from kpy.metadata.state_changes import Verdict, Verdicts, change_assignments

Targets = Mapping[int, Sequence[int] | None]
"""The replicas that partitions are to get; None puts an end to a reassignment."""


async def reassign(cluster: Cluster, topics: Mapping[str, Targets]) -> Verdicts:
    """Begins or cancels reassignments, each on its own. Raises ApiError NOT_CONTROLLER."""
    refusal = ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic is being deleted.")

    def judge(topic: str, index: int, known: PartitionImage | None) -> Verdict:
        return judged(known, topics[topic][index], cluster.office.eligible)

    async with cluster.changing():
        cluster.office.check_held()
        asked = {topic: list(targets) for topic, targets in topics.items() if not cluster.office.is_deleted(topic)}
        verdicts = await change_assignments(cluster, asked, judge)
    return {topic: verdicts.get(topic) or dict.fromkeys(targets, refusal) for topic, targets in topics.items()}
