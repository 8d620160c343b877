"""What tools ask of the controller through ZooKeeper (Kafka class KafkaController): kafka-reassign-partitions and
kafka-preferred-replica-election with `--zookeeper`, of Apache Kafka 2.8 and before.

A reassignment is begun for each partition that the node names. A partition leaves the node when it has got its
replicas, when it cannot have them, or when somebody has sent it elsewhere since; without any the node goes, by which
the tool sees that it may ask again. A controller that takes over finds the node and carries on. Preferred elections are
held at once, and their node goes.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kpy.controller.elections import preferred_leader
from kpy.controller.reassignments import is_reassigned, judged, target_of
from kpy.errors import ApiError
from kpy.metadata import znodes
from kpy.metadata.image import PartitionImage
from kpy.metadata.observer import Observer
from kpy.metadata.store import Delete, SetData, StoreError

if TYPE_CHECKING:
    from kpy.metadata.office import Office

log = logging.getLogger("kpy.metadata")

Key = tuple[str, int]
"""A topic's name and a partition."""
Targets = Mapping[Key, tuple[int, ...]]


class ToolRequests:
    """One term of office's dealings with the tools. All is done under the cluster's lock."""

    def __init__(self, office: "Office", observer: Observer) -> None:
        self._office = office
        self._observer = observer
        self._begun: dict[Key, tuple[int, ...]] = {}
        self._passed_over: tuple[int, int] | None = None
        """The node that could not be understood: when it was created, and its version."""

    async def take(self) -> bool:
        """Whether anything was written, so that there may be more to decide. Raises ApiError NOT_CONTROLLER."""
        if not self._observer.tool_requests:
            return False
        try:
            return await self._elect() or await self._reassign()
        except StoreError:
            # Somebody was faster. What there is now is read, and decided on anew.
            await self._observer.read_topics(list(self._observer.topics))
            await self._observer.refresh([znodes.REASSIGNMENTS, znodes.PREFERRED_ELECTIONS])
            return True

    # -- reassignments -----------------------------------------------------------------------------------------------

    async def _reassign(self) -> bool:
        path = znodes.REASSIGNMENTS
        node = self._observer.tool_requests.get(path)
        if node is None:
            return False
        try:
            wanted = znodes.decode_reassignments(node.data)
        except ValueError as error:
            if self._passed_over != (node.czxid, node.version):
                self._passed_over = node.czxid, node.version
                log.error("passing over %s, which cannot be understood: %s", path, error)
            return False
        left, started = self._judge(wanted)
        for topic, partitions in started.items():
            await self._office.change_assignments(topic, partitions)
            for partition in partitions:
                self._begun[topic, partition.partition] = target_of(partition)
        if len(left) == len(wanted) and left:
            return bool(started)
        op = SetData(path, znodes.encode_reassignments(left), node.version) if left else Delete(path, node.version)
        await self._office.write([op])
        await self._observer.refresh([path])
        return True

    def _judge(self, wanted: Targets) -> tuple[Targets, Mapping[str, Sequence[PartitionImage]]]:
        """What stays in the node, and the partitions whose reassignment begins, by topic."""
        left = dict(wanted)
        started: dict[str, list[PartitionImage]] = defaultdict(list)
        for key, target in wanted.items():
            partition = self._partition(key)
            if partition is not None and target_of(partition) == target:
                if not is_reassigned(partition):
                    log.info("%s-%d has the replicas %s that a tool has asked for", *key, list(target))
                    del left[key]
                continue
            if self._begun.get(key) == target:
                problem: str | None = "somebody has put an end to it"
            else:
                verdict = judged(partition, target, self._office.eligible)
                problem = str(verdict) if isinstance(verdict, ApiError) else None
                if isinstance(verdict, PartitionImage):
                    started[key[0]].append(verdict)
            if problem is not None:
                log.warning("%s-%d does not get the replicas %s: %s", *key, list(target), problem)
                del left[key]
        self._begun = {key: target for key, target in self._begun.items() if key in left}
        return left, started

    # -- preferred elections -----------------------------------------------------------------------------------------

    async def _elect(self) -> bool:
        path = znodes.PREFERRED_ELECTIONS
        node = self._observer.tool_requests.get(path)
        if node is None:
            return False
        try:
            wanted = znodes.decode_preferred_elections(node.data)
        except ValueError as error:
            log.error("deleting %s, which cannot be understood: %s", path, error)
            wanted = []
        elected: dict[str, list[PartitionImage]] = defaultdict(list)
        for key in dict.fromkeys(wanted):
            partition = self._partition(key)
            if partition is None:
                log.info("%s-%d does not get its preferred leader: it does not exist", *key)
                continue
            changed = preferred_leader(partition, self._office.eligible)
            if changed is not None:
                elected[key[0]].append(changed)
            elif partition.leader != partition.replicas[0]:
                preferred = partition.replicas[0]
                log.warning(
                    "%s-%d stays with leader %d: broker %d is away or not in sync", *key, partition.leader, preferred
                )
        lost = await self._office.change_states(elected)
        if lost:
            await self._observer.read_topics(lost)
            return True
        await self._office.write([Delete(path, node.version)])
        await self._observer.refresh([path])
        return True

    def _partition(self, key: Key) -> PartitionImage | None:
        """None also for one that somebody has asked to be deleted."""
        name, index = key
        topic = self._observer.topics.get(name)
        if topic is None or self._office.is_deleted(name) or not 0 <= index < len(topic.partitions):
            return None
        return topic.partitions[index]
