"""How the controller changes partitions because somebody asks for it: it judges, writes, and if somebody else has
changed them behind its back, reads and judges anew.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import MAX_ATTEMPTS, Cluster
from kpy.metadata.image import NO_STATE, PartitionImage

Verdict = PartitionImage | ApiError
"""The partition as it is to be, which is the one that was judged if it is so already; or why it is not changed."""

Judge = Callable[[str, int, PartitionImage | None], Verdict]
"""Called with a topic, the number of a partition, and its state if it exists and has one."""

Verdicts = dict[str, dict[int, Verdict]]
"""By topic and partition."""

Write = Callable[[Mapping[str, Sequence[PartitionImage]]], Awaitable[frozenset[str]]]
"""Returns the topics that have not been written, or not in full, since somebody has changed them."""


async def change_states(cluster: Cluster, asked: Mapping[str, Sequence[int]], judge: Judge) -> Verdicts:
    """Changes leaders and ISRs of partitions, which are `asked` by topic. Inside `cluster.changing()`. Raises ApiError
    NOT_CONTROLLER, StoreUnavailable.
    """
    return await _change(cluster, asked, judge, cluster.office.change_states)


async def change_assignments(cluster: Cluster, asked: Mapping[str, Sequence[int]], judge: Judge) -> Verdicts:
    """The same, with the replicas."""
    return await _change(cluster, asked, judge, cluster.office.change_all_assignments)


async def _change(cluster: Cluster, asked: Mapping[str, Sequence[int]], judge: Judge, write: Write) -> Verdicts:
    verdicts: Verdicts = {}
    left: Collection[str] = asked
    for _ in range(MAX_ATTEMPTS):
        changed: dict[str, list[PartitionImage]] = {}
        for topic in (topic for topic in asked if topic in left):
            known = _known(cluster, topic)
            verdicts[topic] = {index: judge(topic, index, known.get(index)) for index in asked[topic]}
            changed[topic] = [
                verdict
                for index, verdict in verdicts[topic].items()
                if isinstance(verdict, PartitionImage) and verdict is not known.get(index)
            ]
        left = await write({topic: partitions for topic, partitions in changed.items() if partitions})
        if not left:
            return verdicts
        await cluster.read_again(left)
    for topic in left:
        verdicts[topic] = dict.fromkeys(asked[topic], ApiError(ErrorCode.INVALID_UPDATE_VERSION))
    return verdicts


def _known(cluster: Cluster, topic: str) -> Mapping[int, PartitionImage]:
    image = cluster.stored.topics.get(topic)
    if image is None:
        return {}
    return {each.partition: each for each in image.partitions if each.partition_epoch != NO_STATE}
