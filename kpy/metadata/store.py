"""The seam to wherever the cluster's metadata is kept: a tree of small versioned nodes, the size of ZooKeeper's own
API.

Nothing here knows what a topic is. A path names a node; a node has data (bytes, or None, which ZooKeeper tells apart
from empty) and a version that counts its changes from 0. A change may demand the version it expects, so that two
writers cannot overwrite each other unseen; `multi` does several changes or none. An ephemeral node lives as long as
the session that created it. Every implementation passes tests/unit/metadata/store_conformance.py.

A change is durable when its method returns. While the store is out of reach its methods wait, for a bounded time, and
then raise StoreUnavailable; whether a change was made is then unknown, and whoever asked for it reads again.

A session is lost when the store has not heard of this process for too long. Its ephemeral nodes are gone by then, and
a new session has taken its place when `on_session` is told: `session_id` is another one.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kpy.errors import ApiError, ErrorCode

ANY_VERSION = -1
"""As an expected version: whatever it is."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\uffff]")
"""Characters that no path may have."""

MAX_NODE_BYTES = 1000 * 1024
"""Bound of a node: its path and data together."""


MAX_MULTI_BYTES = 1020 * 1024
"""Bound of a `multi`: a ZooKeeper server closes the connection on more than its jute.maxbuffer, 1 MiB less one byte."""

OP_OVERHEAD_BYTES = 100
"""More than what an operation takes in a `multi` besides its path and its data: a header, lengths and an ACL."""


class StoreError(Exception):
    """A change or read that the tree's state does not allow; `path` says where. Nothing was changed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class NoNode(StoreError):  # noqa: N818 - ZooKeeper's names; they are outcomes to act on rather than failures
    """The node, or the parent of a node to be created, does not exist."""


class NodeExists(StoreError):  # noqa: N818 - as above
    """A node to be created is there already."""


class BadVersion(StoreError):  # noqa: N818 - as above
    """The node has changed since the expected version was read."""


class NotEmpty(StoreError):  # noqa: N818 - as above
    """A node to be deleted still has children."""


class StoreUnavailable(ApiError):  # noqa: N818 - as above
    """The store did not answer in time. A change may have been made, or may not; a client is told to ask again."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REQUEST_TIMED_OUT, message)


class Node(NamedTuple):
    data: bytes | None
    version: int
    czxid: int = 0
    """Number of the change that created the node: greater than that of any change before it."""
    owner: int = 0
    """Id of the session that an ephemeral node lives in, 0 for a node that stays."""
    created_ms: int = 0
    """When the node was created, by the store's clock."""


@dataclass(frozen=True, slots=True)
class Create:
    path: str
    data: bytes | None = None
    ephemeral: bool = False
    sequential: bool = False
    """Ten digits are added to the path, which rise from one such child of the same parent to the next."""


@dataclass(frozen=True, slots=True)
class SetData:
    path: str
    data: bytes | None
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Delete:
    path: str
    version: int = ANY_VERSION


@dataclass(frozen=True, slots=True)
class Check:
    """Changes nothing, and fails the whole `multi` unless the node is at this version."""

    path: str
    version: int


Op = Create | SetData | Delete | Check


class MetadataStore(Protocol):
    """A tree of nodes. Paths follow ZooKeeper's rules (`validate_path`); a path that breaks them raises ValueError.

    A read with `watch` has the store tell `on_change` the path once, when what was read changes next: the data or the
    existence of a node, or, after `children`, the set of its children. So that nothing is missed, whoever is told reads
    again. The path is "/" when changes may have been missed: everything is to be read again.
    """

    on_change: Callable[[str], None]
    on_session: Callable[[], None]
    """Told that the session was lost and there is another."""

    @property
    def session_id(self) -> int:
        """Of the current session: never 0."""
        ...

    async def get(self, path: str, *, watch: bool = False) -> Node:
        """Raises NoNode."""
        ...

    async def find(self, path: str, *, watch: bool = False) -> Node | None:
        """The node, or None where there is none; a watch then tells of its creation."""
        ...

    async def find_all(self, paths: Iterable[str], *, watch: bool = False) -> list[Node | None]:
        """Many nodes as `find` has them, in one sweep: cheaper than one after the other. It is not one snapshot."""
        ...

    async def children(self, path: str, *, watch: bool = False) -> list[str]:
        """The names (not paths) of the node's children, sorted. Raises NoNode."""
        ...

    async def tree(self, path: str) -> dict[str, Node]:
        """The node and everything below it, by path, in one sweep. Raises NoNode.

        It need not be one snapshot: a store that is shared may see changes of others while it reads.
        """
        ...

    async def create(
        self, path: str, data: bytes | None = None, *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        """Returns the path, which is another one if sequential.

        Raises NodeExists, NoNode (the parent is missing), ValueError (larger than MAX_NODE_BYTES).
        """
        ...

    async def set(self, path: str, data: bytes | None, version: int = ANY_VERSION) -> int:
        """Replaces the data and returns the node's new version. Raises NoNode, BadVersion, ValueError."""
        ...

    async def delete(self, path: str, version: int = ANY_VERSION) -> None:
        """Raises NoNode, BadVersion, NotEmpty."""
        ...

    async def multi(self, ops: Sequence[Op]) -> None:
        """Carries out all operations in order, each seeing those before it, or none. Raises the first one's error,
        and ValueError for more than MAX_MULTI_BYTES.
        """
        ...

    async def close(self) -> None:
        """Ends the session: its ephemeral nodes are gone. Closing twice does nothing."""
        ...


def validate_path(path: str) -> None:
    """Raises ValueError unless ZooKeeper would take the path too (its class PathUtils)."""
    if path == "/":
        return
    if not path.startswith("/"):
        raise ValueError(f"path {path!r} must start with a slash")
    for name in path[1:].split("/"):
        if name in ("", ".", ".."):
            raise ValueError(f"path {path!r} has an empty or relative part")
    forbidden = _FORBIDDEN.search(path)
    if forbidden is not None:
        raise ValueError(f"path {path!r} has the character {forbidden[0]!r}")


def check_size(path: str, data: bytes | None) -> None:
    """Raises ValueError for a node above MAX_NODE_BYTES."""
    size = len(path) + (0 if data is None else len(data))
    if size > MAX_NODE_BYTES:
        raise ValueError(f"node {path} would have {size} bytes, more than {MAX_NODE_BYTES}")


def check_multi_size(ops: Sequence[Op]) -> None:
    """Raises ValueError for operations that together are above MAX_MULTI_BYTES, or one whose node is too large."""
    size = 0
    for op in ops:
        size += OP_OVERHEAD_BYTES + len(op.path)
        if isinstance(op, Create | SetData):
            check_size(op.path, op.data)
            size += len(op.data or b"")
    if len(ops) > 1 and size > MAX_MULTI_BYTES:
        raise ValueError(f"{len(ops)} operations together would have {size} bytes, more than {MAX_MULTI_BYTES}")


def ignore_path(path: str) -> None:
    """Stands in `on_change` until somebody listens."""


def ignore_session() -> None:
    """Stands in `on_session` until somebody listens."""


def with_parents(paths: Sequence[str]) -> list[str]:
    """The paths and all their ancestors but the root, parents first: the order in which they can be created."""
    ordered: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(2, len(parts) + 1):
            ordered["/".join(parts[:end])] = None
    return list(ordered)
