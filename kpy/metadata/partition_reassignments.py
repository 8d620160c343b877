"""Moves of replicas that somebody asks for; kpy/controller/reassignments.py says what they are (KIP-455)."""

from collections.abc import Mapping, Sequence

from kpy.controller.reassignments import judged
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import Cluster
from kpy.metadata.image import PartitionImage
from kpy.metadata.state_changes import Verdict, change_assignments

Targets = Mapping[int, Sequence[int] | None]
"""The replicas that partitions are to get; None puts an end to a reassignment."""


async def reassign(cluster: Cluster, topics: Mapping[str, Targets]) -> dict[str, dict[int, Verdict]]:
    """Begins or cancels reassignments, each on its own. Raises ApiError NOT_CONTROLLER."""
    verdicts: dict[str, dict[int, Verdict]] = {}
    async with cluster.changing():
        cluster.office.check_held()
        for topic, targets in topics.items():
            if cluster.office.is_deleted(topic):
                refusal = ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic is being deleted.")
                verdicts[topic] = dict.fromkeys(targets, refusal)
                continue

            def judge(index: int, known: PartitionImage | None, targets: Targets = targets) -> Verdict:
                return judged(known, targets[index], cluster.office.eligible)

            verdicts[topic] = await change_assignments(cluster, topic, list(targets), judge)
    return verdicts
