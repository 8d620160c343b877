"""How the controller changes partitions because somebody asks for it: it judges, writes, and if somebody else has
changed them behind its back, reads and judges anew.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import MAX_ATTEMPTS, Cluster
from kpy.metadata.image import NO_STATE, PartitionImage
from kpy.metadata.store import StoreError, StoreUnavailable

Verdict = PartitionImage | ApiError
"""The partition as it is to be, which is the one that was judged if it is so already; or why it is not changed."""

Judge = Callable[[int, PartitionImage | None], Verdict]
"""Called with the number of a partition, and its state if it exists and has one."""


async def change_states(cluster: Cluster, topic: str, indexes: Sequence[int], judge: Judge) -> dict[int, Verdict]:
    """Changes leaders and ISRs. Inside `cluster.changing()`. Raises ApiError NOT_CONTROLLER, StoreUnavailable."""
    return await _change(cluster, topic, indexes, judge, cluster.office.change_states)


async def change_assignments(cluster: Cluster, topic: str, indexes: Sequence[int], judge: Judge) -> dict[int, Verdict]:
    """The same, with the replicas."""
    return await _change(cluster, topic, indexes, judge, cluster.office.change_assignments)


async def _change(
    cluster: Cluster,
    topic: str,
    indexes: Sequence[int],
    judge: Judge,
    write: Callable[[str, Sequence[PartitionImage]], Awaitable[None]],
) -> dict[int, Verdict]:
    for _ in range(MAX_ATTEMPTS):
        known = _known(cluster, topic)
        verdicts = {index: judge(index, known.get(index)) for index in indexes}
        changed = [
            verdict
            for index, verdict in verdicts.items()
            if isinstance(verdict, PartitionImage) and verdict is not known.get(index)
        ]
        if not changed:
            return verdicts
        try:
            await write(topic, changed)
            return verdicts
        except StoreUnavailable:
            raise
        except StoreError:
            await cluster.read_again(topic)
    return dict.fromkeys(indexes, ApiError(ErrorCode.INVALID_UPDATE_VERSION))


def _known(cluster: Cluster, topic: str) -> Mapping[int, PartitionImage]:
    image = cluster.stored.topics.get(topic)
    if image is None:
        return {}
    return {each.partition: each for each in image.partitions if each.partition_epoch != NO_STATE}
