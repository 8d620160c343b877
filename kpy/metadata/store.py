"""The seam to wherever the cluster's metadata is kept: a tree of small versioned nodes, the size of ZooKeeper's own
API.

Nothing here knows what a topic is. A path names a node; a node has data (bytes, or None, which ZooKeeper tells apart
from empty) and a version that counts its changes from 0. A change may demand the version it expects, so that two
writers cannot overwrite each other unseen; `multi` does several changes or none. An ephemeral node lives as long as
the session that created it. Every implementation passes tests/unit/metadata/store_conformance.py.

All methods are synchronous and a change is durable when its method returns.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

ANY_VERSION = -1
"""As an expected version: whatever it is."""

MAX_NODE_BYTES = 1024 * 1024
"""Bound of a node: its path and data together (ZooKeeper's default jute.maxbuffer)."""


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


class Node(NamedTuple):
    data: bytes | None
    version: int


@dataclass(frozen=True, slots=True)
class Create:
    path: str
    data: bytes | None = None
    ephemeral: bool = False


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
    """A tree of nodes. Paths follow ZooKeeper's rules (`validate_path`); a path that breaks them raises ValueError."""

    def get(self, path: str) -> Node:
        """Raises NoNode."""
        ...

    def exists(self, path: str) -> bool: ...

    def children(self, path: str) -> list[str]:
        """The names (not paths) of the node's children, sorted. Raises NoNode."""
        ...

    def tree(self, path: str) -> dict[str, Node]:
        """The node and everything below it, by path, in one sweep: cheaper than a `get` each. Raises NoNode.

        It need not be one snapshot: a store that is shared may see changes of others while it reads.
        """
        ...

    def create(self, path: str, data: bytes | None = None, *, ephemeral: bool = False) -> None:
        """Raises NodeExists, NoNode (the parent is missing), ValueError (larger than MAX_NODE_BYTES)."""
        ...

    def set(self, path: str, data: bytes | None, version: int = ANY_VERSION) -> int:
        """Replaces the data and returns the node's new version. Raises NoNode, BadVersion, ValueError."""
        ...

    def delete(self, path: str, version: int = ANY_VERSION) -> None:
        """Raises NoNode, BadVersion, NotEmpty."""
        ...

    def multi(self, ops: Iterable[Op]) -> None:
        """Carries out all operations in order, each seeing those before it, or none. Raises the first one's error."""
        ...

    def watch(self, path: str, callback: Callable[[str], None]) -> None:
        """Calls back with the path after each change of the node: created, deleted, new data, or another set of
        children.

        The watch stays. It says that something changed, not what: changes that follow each other quickly may be
        reported once.
        """
        ...

    def close(self) -> None:
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
    for character in path:
        if _is_forbidden(character):
            raise ValueError(f"path {path!r} has the character {character!r}")


def check_size(path: str, data: bytes | None) -> None:
    """Raises ValueError for a node above MAX_NODE_BYTES."""
    size = len(path) + (0 if data is None else len(data))
    if size > MAX_NODE_BYTES:
        raise ValueError(f"node {path} would have {size} bytes, more than {MAX_NODE_BYTES}")


def with_parents(paths: Sequence[str]) -> list[str]:
    """The paths and all their ancestors but the root, parents first: the order in which they can be created."""
    ordered: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(2, len(parts) + 1):
            ordered["/".join(parts[:end])] = None
    return list(ordered)


def _is_forbidden(character: str) -> bool:
    return (
        character <= "\x1f"
        or "\x7f" <= character <= "\x9f"
        or "\ud800" <= character <= "\uf8ff"
        or "\ufff0" <= character <= "\uffff"
    )
