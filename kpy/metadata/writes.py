"""The operations on the store that a change of the cluster comes to, in Apache Kafka's nodes.

Here is what is written, and in which order; when, and what happens if it fails, is said in cluster.py.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from kpy.metadata import znodes
from kpy.metadata.image import PartitionImage, TopicImage
from kpy.metadata.store import (
    MAX_MULTI_BYTES,
    OP_OVERHEAD_BYTES,
    Create,
    Delete,
    MetadataStore,
    NoNode,
    Op,
    SetData,
)

CONFIG_CHANGE_EXPIRATION_MS = 15 * 60 * 1000
"""How long the other brokers have to read that a config has changed, as in Apache Kafka."""

MAX_OPS = 1000
"""Of one transaction: more go in several, and a controller that finds only the first ones carries on from there."""


def new_topic(topic: TopicImage, *, config_exists: bool) -> list[Op]:
    """The nodes of the topic itself; its partitions follow, see `new_states`."""
    config_path = znodes.topic_config_path(topic.name)
    configs = znodes.encode_config(topic.configs)
    # A config node can outlive, or come before, its topic: old tools write one first.
    return [
        SetData(config_path, configs) if config_exists else Create(config_path, configs),
        Create(znodes.topic_path(topic.name), encode_topic(topic)),
    ]


def new_states(
    topic: str, partitions: Iterable[PartitionImage], controller_epoch: int, existing: frozenset[str] = frozenset()
) -> list[Op]:
    """The first states of partitions, with the nodes above them but for those that exist."""
    ops: list[Op] = []
    parent = znodes.partitions_path(topic)
    if parent not in existing:
        ops.append(Create(parent))
    for partition in partitions:
        path = znodes.partition_path(topic, partition.partition)
        if path not in existing:
            ops.append(Create(path))
        state = encode_state(partition, controller_epoch)
        ops.append(Create(znodes.partition_state_path(topic, partition.partition), state))
    return ops


async def existing_partition_nodes(
    store: MetadataStore, topic: str, partitions: Iterable[PartitionImage]
) -> frozenset[str]:
    """Those of the nodes above the partitions' states that exist."""
    paths = [znodes.partitions_path(topic)]
    paths += [znodes.partition_path(topic, partition.partition) for partition in partitions]
    nodes = await store.find_all(paths)
    return frozenset(path for path, node in zip(paths, nodes, strict=True) if node is not None)


def changed_states(topic: str, partitions: Iterable[PartitionImage], controller_epoch: int) -> list[Op]:
    """States in place of those of the partition epoch before."""
    return [
        SetData(
            znodes.partition_state_path(topic, partition.partition),
            encode_state(partition, controller_epoch),
            partition.partition_epoch - 1,
        )
        for partition in partitions
    ]


async def topic_deletion(store: MetadataStore, topic: str) -> list[Op]:
    """Everything of the topic, from the leaves up, then its configs, and last the request to delete it."""
    # Children come after their parents in a sorted listing, and have to go first.
    ops: list[Op] = [Delete(path) for path in sorted(await store.tree(znodes.topic_path(topic)), reverse=True)]
    paths = (znodes.topic_config_path(topic), znodes.deletion_path(topic))
    for path, node in zip(paths, await store.find_all(paths), strict=True):
        if node is not None:
            ops.append(Delete(path))
    return ops


async def tell_of_config(store: MetadataStore, entity_path: str, now_ms: int) -> None:
    """Java brokers do not watch configs but notes of what has changed. Whoever writes one clears old ones away."""
    note = znodes.encode_config_change(entity_path)
    await store.create(f"{znodes.CONFIG_CHANGES}/config_change_", note, sequential=True)
    paths = [f"{znodes.CONFIG_CHANGES}/{name}" for name in await store.children(znodes.CONFIG_CHANGES)]
    expired_ms = now_ms - CONFIG_CHANGE_EXPIRATION_MS
    for path, node in zip(paths, await store.find_all(paths), strict=True):
        if node is not None and node.created_ms < expired_ms:
            with contextlib.suppress(NoNode):  # Another broker tidies up too.
                await store.delete(path)


def in_transactions(ops: Sequence[Op], first: Sequence[Op] = ()) -> Iterator[list[Op]]:
    """The operations in as many transactions as they need, in order, each one beginning with those of `first`."""
    batch: list[Op] = []
    size = 0
    for op in ops:
        op_size = OP_OVERHEAD_BYTES + len(op.path) + len(_data(op))
        if batch and (len(batch) == MAX_OPS or size + op_size > MAX_MULTI_BYTES - _size(first)):
            yield [*first, *batch]
            batch, size = [], 0
        batch.append(op)
        size += op_size
    if batch:
        yield [*first, *batch]


def topic_node(topic: TopicImage) -> znodes.TopicNode:
    """What the topic's node says."""
    partitions: Mapping[int, PartitionImage] = {partition.partition: partition for partition in topic.partitions}
    return znodes.TopicNode(
        topic.topic_id,
        {index: partition.replicas for index, partition in partitions.items()},
        {index: partition.adding for index, partition in partitions.items() if partition.adding},
        {index: partition.removing for index, partition in partitions.items() if partition.removing},
    )


def encode_topic(topic: TopicImage) -> bytes:
    return znodes.encode_topic(topic_node(topic))


def encode_state(partition: PartitionImage, controller_epoch: int) -> bytes:
    state = znodes.PartitionState(
        partition.leader, partition.leader_epoch, partition.isr, controller_epoch, int(partition.recovering)
    )
    return znodes.encode_partition_state(state)


def _data(op: Op) -> bytes:
    return op.data or b"" if isinstance(op, Create | SetData) else b""


def _size(ops: Sequence[Op]) -> int:
    return sum(OP_OVERHEAD_BYTES + len(op.path) + len(_data(op)) for op in ops)
