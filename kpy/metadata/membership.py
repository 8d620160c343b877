"""How a broker joins the cluster: its registration, and the election of the controller (Kafka class KafkaZkClient).

Both are ephemeral nodes, so both end with the session. A registration's czxid is the broker's epoch, by which requests
of an earlier life are told apart. An election raises /controller_epoch in the same transaction that creates
/controller: a controller that has lost its office, and does not know yet, fails at the check that each of its writes
begins with.
"""

import contextlib
from collections.abc import Collection
from typing import NamedTuple

from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.metadata import znodes
from kpy.metadata.store import (
    BadVersion,
    Check,
    Create,
    MetadataStore,
    NodeExists,
    NoNode,
    SetData,
    with_parents,
)


async def make_layout(store: MetadataStore, cluster_id: str) -> None:
    """Creates the nodes that every cluster has, where they are missing, and gives a new cluster its id."""
    paths = with_parents(znodes.PERSISTENT_PATHS)
    nodes = await store.find_all([*paths, znodes.CLUSTER_ID])
    missing = [Create(path) for path, node in zip(paths, nodes, strict=False) if node is None]
    if nodes[-1] is None:
        missing.append(Create(znodes.CLUSTER_ID, znodes.encode_cluster_id(cluster_id)))
    if not missing:
        return
    try:
        await store.multi(missing)
    except NodeExists:
        for op in missing:  # Another broker starts too.
            with contextlib.suppress(NodeExists):
                await store.create(op.path, op.data)


class Conflict(ApiError):  # noqa: N818 - it may end by itself, with the other's session
    """Another session has registered this broker's id, or an address of it. A client is told to ask again."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REQUEST_TIMED_OUT, message)


class Term(NamedTuple):
    """An office of controller that was won."""

    controller_epoch: int
    fence: Check
    """Goes first into each `multi` of the controller."""


async def register(
    store: MetadataStore,
    broker_id: int,
    registration: znodes.BrokerRegistration,
    now_ms: int,
    own_sessions: Collection[int],
) -> None:
    """Registers the broker, or changes its registration in this session. Raises Conflict.

    `own_sessions` are sessions that this process had before: what is left of them is deleted.
    """
    await _check_addresses(store, broker_id, registration)
    path = znodes.broker_path(broker_id)
    data = znodes.encode_broker(registration, now_ms)
    while True:
        try:
            # In two steps as Apache Kafka does it, whose controllers watch for the data to come.
            await store.multi([Create(path, None, ephemeral=True), SetData(path, data, 0)])
            return
        except NodeExists:
            node = await store.find(path)
        try:
            if node is not None and node.owner == store.session_id:
                await store.set(path, data)
                return
            if node is not None and node.owner in own_sessions:
                await store.delete(path, node.version)
                continue
        except (NoNode, BadVersion):
            continue
        if node is not None:
            raise Conflict(f"broker.id={broker_id} is registered by another broker, {_addresses(node.data)}")


async def stand_for_election(store: MetadataStore, broker_id: int, now_ms: int) -> Term | None:
    """The office, if it was free and nobody was faster. Raises StorageError for an epoch that is none."""
    node = await store.find(znodes.CONTROLLER_EPOCH)
    if node is None:
        with contextlib.suppress(NodeExists):
            await store.create(znodes.CONTROLLER_EPOCH, znodes.encode_controller_epoch(0))
        node = await store.get(znodes.CONTROLLER_EPOCH)
    try:
        epoch = znodes.decode_controller_epoch(node.data) + 1
    except ValueError as error:
        raise StorageError(f"The metadata store holds at {znodes.CONTROLLER_EPOCH} what is not Kafka's.") from error
    try:
        await store.multi(
            [
                Create(znodes.CONTROLLER, znodes.encode_controller(broker_id, now_ms), ephemeral=True),
                SetData(znodes.CONTROLLER_EPOCH, znodes.encode_controller_epoch(epoch), node.version),
            ]
        )
    except (NodeExists, BadVersion):
        return None
    return Term(epoch, Check(znodes.CONTROLLER_EPOCH, node.version + 1))


async def _check_addresses(store: MetadataStore, broker_id: int, registration: znodes.BrokerRegistration) -> None:
    own = set(registration.endpoints.values())
    names = await store.children(znodes.BROKER_IDS)
    others = [name for name in names if name != str(broker_id)]
    nodes = await store.find_all([f"{znodes.BROKER_IDS}/{name}" for name in others])
    for name, node in zip(others, nodes, strict=True):
        try:
            endpoints = znodes.decode_broker(node.data).endpoints if node is not None else {}
        except ValueError:
            continue  # Whoever needs to read it says so.
        taken = set(endpoints.values())
        if own & taken:
            host, port = min(own & taken)
            raise Conflict(f"broker {name} has registered {host}:{port}, which this broker wants to be reached at")


def _addresses(data: bytes | None) -> str:
    try:
        endpoints = znodes.decode_broker(data).endpoints
    except ValueError:
        return "which cannot be understood"
    return "at " + ", ".join(f"{host}:{port}" for host, port in endpoints.values())
