"""The embedded store against the simplest thing that could be one: a dictionary of nodes, under random operations."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.store import (
    ANY_VERSION,
    BadVersion,
    Check,
    Create,
    Delete,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    SetData,
    StoreError,
)

NAMES = st.sampled_from(["a", "b", "a.", "a-", "0"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))
DATA = st.none() | st.binary(max_size=3)
VERSIONS = st.sampled_from([ANY_VERSION, 0, 1, 2])
OPS = st.one_of(
    st.builds(Create, PATHS, DATA),
    st.builds(Create, PATHS, DATA),
    st.builds(SetData, PATHS, DATA, VERSIONS),
    st.builds(Delete, PATHS, VERSIONS),
    st.builds(Check, PATHS, VERSIONS),
)
Tree = dict[str, tuple[bytes | None, int]]
"""Data and version by path."""


def applied(tree: Tree, ops: list[Op]) -> Tree:
    """The tree after all operations. Raises what the first one that fails must raise."""
    after = dict(tree)
    for op in ops:
        if isinstance(op, Create):
            parent = op.path.rpartition("/")[0] or "/"
            if op.path in after:
                raise NodeExists(op.path)
            if parent not in after:
                raise NoNode(parent)
            after[op.path] = (op.data, 0)
            continue
        if op.path not in after:
            raise NoNode(op.path)
        version = after[op.path][1]
        if op.version not in (ANY_VERSION, version):
            raise BadVersion(op.path)
        if isinstance(op, SetData):
            after[op.path] = (op.data, version + 1)
        elif isinstance(op, Delete):
            if any(path.startswith(f"{op.path}/") for path in after):
                raise NotEmpty(op.path)
            del after[op.path]
    return after


async def failure(action: Callable[[], Any]) -> tuple[type[StoreError], str] | None:
    """What the action raises, or None."""
    try:
        result = action()
        if isinstance(result, Coroutine):
            await result
    except StoreError as error:
        return type(error), error.path
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(OPS, min_size=1, max_size=4), max_size=25))
def test_the_store_is_a_dictionary_with_transactions(transactions: list[list[Op]]) -> None:
    trio.run(_compare, transactions)


async def _compare(transactions: list[list[Op]]) -> None:
    store = EmbeddedStore(None)
    tree: Tree = {"/": (None, 0)}
    for ops in transactions:
        expected = await failure(partial(applied, tree, ops))
        assert await failure(partial(store.multi, ops)) == expected
        if expected is None:
            tree = applied(tree, ops)
        assert await content(store, "/") == tree
    for path in tree:
        below = path.rstrip("/") + "/"
        descendants = {key: node for key, node in tree.items() if key.startswith(below) and key != path}
        assert await content(store, path) == {path: tree[path], **descendants}
        names = [key.removeprefix(below) for key in descendants]
        assert await store.children(path) == sorted(name for name in names if "/" not in name)
    await store.close()


async def content(store: EmbeddedStore, path: str) -> Tree:
    return {below: (node.data, node.version) for below, node in (await store.tree(path)).items()}
