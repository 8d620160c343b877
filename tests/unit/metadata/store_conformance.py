"""What every MetadataStore must do, as a table of checks over a store that a factory makes.

An implementation's test module parametrizes a test over `CHECKS` and hands each one a fresh store: see
test_embedded_store.py.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
import trio

from kpy.metadata.store import (
    MAX_NODE_BYTES,
    BadVersion,
    Check,
    Create,
    Delete,
    MetadataStore,
    NodeExists,
    NoNode,
    NotEmpty,
    SetData,
)

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine."""

    async def awaited() -> T:
        return await coroutine

    return trio.run(awaited)


async def content(store: MetadataStore, path: str) -> tuple[bytes | None, int]:
    """A node's data and version."""
    node = await store.get(path)
    return node.data, node.version


async def snapshot(store: MetadataStore) -> dict[str, tuple[bytes | None, int]]:
    """Data and version of all nodes below the root."""
    tree = await store.tree("/")
    return {path: (node.data, node.version) for path, node in tree.items() if path != "/"}


async def exists(store: MetadataStore, path: str) -> bool:
    return await store.find(path) is not None


async def a_created_node_is_read_back(store: MetadataStore) -> None:
    await store.create("/a", b"data")
    assert await exists(store, "/a")
    assert await content(store, "/a") == (b"data", 0)


async def null_data_and_empty_data_differ(store: MetadataStore) -> None:
    await store.create("/null")
    await store.create("/empty", b"")
    assert (await store.get("/null")).data is None
    assert (await store.get("/empty")).data == b""


async def the_root_exists(store: MetadataStore) -> None:
    assert await exists(store, "/")
    assert await store.children("/") == []


async def creating_twice_fails(store: MetadataStore) -> None:
    await store.create("/a", b"first")
    with pytest.raises(NodeExists) as caught:
        await store.create("/a", b"second")
    assert caught.value.path == "/a"
    assert await content(store, "/a") == (b"first", 0)


async def creating_without_a_parent_fails(store: MetadataStore) -> None:
    with pytest.raises(NoNode) as caught:
        await store.create("/a/b", b"")
    assert caught.value.path == "/a"
    assert not await exists(store, "/a/b")


async def reading_what_is_not_there_fails(store: MetadataStore) -> None:
    assert not await exists(store, "/a")
    for read in (store.get, store.children, store.tree):
        with pytest.raises(NoNode):
            await read("/a")


async def setting_counts_versions(store: MetadataStore) -> None:
    await store.create("/a", b"0")
    assert await store.set("/a", b"1") == 1
    assert await store.set("/a", b"2", 1) == 2
    assert await store.set("/a", None, 2) == 3
    assert await content(store, "/a") == (None, 3)


async def setting_an_old_version_fails(store: MetadataStore) -> None:
    await store.create("/a", b"0")
    await store.set("/a", b"1", 0)
    with pytest.raises(BadVersion) as caught:
        await store.set("/a", b"2", 0)
    assert caught.value.path == "/a"
    assert await content(store, "/a") == (b"1", 1)


async def setting_what_is_not_there_fails(store: MetadataStore) -> None:
    with pytest.raises(NoNode):
        await store.set("/a", b"")


async def a_node_created_again_counts_from_0(store: MetadataStore) -> None:
    await store.create("/a", b"0")
    await store.set("/a", b"1")
    await store.delete("/a", 1)
    assert not await exists(store, "/a")
    await store.create("/a", b"2")
    assert await content(store, "/a") == (b"2", 0)


async def deleting_an_old_version_fails(store: MetadataStore) -> None:
    await store.create("/a")
    await store.set("/a", b"1")
    with pytest.raises(BadVersion):
        await store.delete("/a", 0)
    assert await exists(store, "/a")


async def deleting_a_parent_fails(store: MetadataStore) -> None:
    await store.create("/a")
    await store.create("/a/b")
    with pytest.raises(NotEmpty):
        await store.delete("/a")
    await store.delete("/a/b")
    await store.delete("/a")
    with pytest.raises(NoNode):
        await store.delete("/a")


async def children_are_sorted_names_of_the_next_level(store: MetadataStore) -> None:
    for path in ("/a", "/a/z", "/a/b", "/a/b/deep", "/a-sibling", "/a0"):
        await store.create(path)
    assert await store.children("/a") == ["b", "z"]
    assert await store.children("/") == ["a", "a-sibling", "a0"]
    assert await store.children("/a/b/deep") == []


async def a_tree_is_the_node_and_all_below_it(store: MetadataStore) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/a/b.d", "/a/b-", "/a.b", "/a0", "/b"):
        await store.create(path, path.encode())
    await store.set("/a/b/c", b"new")
    assert {path: node[:2] for path, node in (await store.tree("/a")).items()} == {
        "/a": (b"/a", 0),
        "/a/b": (b"/a/b", 0),
        "/a/b/c": (b"new", 1),
        "/a/b.d": (b"/a/b.d", 0),
        "/a/b-": (b"/a/b-", 0),
    }
    assert set(await store.tree("/a/b")) == {"/a/b", "/a/b/c"}
    assert len(await store.tree("/")) == 9


async def names_are_any_text_that_paths_allow(store: MetadataStore) -> None:
    for name in ("%", "_", "a b", "<default>", "..x", "x.", "\u00e9\u4e2d", "'; DROP"):
        await store.create(f"/{name}", name.encode())
        assert (await store.get(f"/{name}")).data == name.encode()


async def a_multi_does_everything_in_order(store: MetadataStore) -> None:
    await store.create("/old", b"")
    await store.multi([Create("/a", b"0"), Create("/a/b"), SetData("/a", b"1", 0), Check("/a", 1), Delete("/old")])
    assert await content(store, "/a") == (b"1", 1)
    assert await exists(store, "/a/b")
    assert not await exists(store, "/old")


async def a_multi_that_fails_changes_nothing(store: MetadataStore) -> None:
    await store.create("/a", b"0")
    for last, error in (
        (Create("/a"), NodeExists),
        (Create("/none/b"), NoNode),
        (SetData("/a", b"", 0), BadVersion),
        (Check("/a", 7), BadVersion),
        (Check("/none", 0), NoNode),
        (Delete("/c"), NotEmpty),
    ):
        with pytest.raises(error):
            await store.multi([SetData("/a", b"1"), Create("/c"), Create("/c/d"), last])
        assert sorted(await store.tree("/")) == ["/", "/a"]
        assert await content(store, "/a") == (b"0", 0)


async def paths_follow_zookeepers_rules(store: MetadataStore) -> None:
    for path in (
        "",
        "a",
        "/a/",
        "//a",
        "/a//b",
        "/.",
        "/a/./b",
        "/a/..",
        "/a\0",
        "/a\x1f",
        "/\x7f",
        "/\x9f",
        "/\ue000",
        "/\uffff",
    ):
        with pytest.raises(ValueError, match="path"):
            await store.create(path)
        with pytest.raises(ValueError, match="path"):
            await exists(store, path)


async def a_node_has_at_most_1000_kib(store: MetadataStore) -> None:
    path = "/a"
    most = bytes(MAX_NODE_BYTES - len(path))
    await store.create(path, most)
    assert (await store.get(path)).data == most
    with pytest.raises(ValueError, match="1024001 bytes"):
        await store.set(path, most + b"x")
    with pytest.raises(ValueError, match="1024001 bytes"):
        await store.create("/b", most + b"x")
    assert (await store.get(path)).version == 0
    assert not await exists(store, "/b")


async def creations_are_numbered(store: MetadataStore) -> None:
    await store.create("/a")
    await store.create("/b")
    first, second = await store.get("/a"), await store.get("/b")
    assert 0 < first.czxid < second.czxid
    await store.set("/a", b"1")
    assert (await store.get("/a")).czxid == first.czxid
    await store.delete("/a")
    await store.create("/a")
    assert (await store.get("/a")).czxid > second.czxid


async def nodes_know_when_they_were_created(store: MetadataStore) -> None:
    await store.create("/a")
    await store.create("/b")
    assert 0 < (await store.get("/a")).created_ms <= (await store.get("/b")).created_ms


async def an_ephemeral_node_has_an_owner(store: MetadataStore) -> None:
    await store.create("/stays")
    await store.create("/session", ephemeral=True)
    assert (await store.get("/stays")).owner == 0
    assert store.session_id != 0
    assert (await store.get("/session")).owner == store.session_id


async def sequential_nodes_are_numbered_in_order(store: MetadataStore) -> None:
    await store.create("/a")
    first = await store.create("/a/n_", b"1", sequential=True)
    assert first == "/a/n_0000000000"
    await store.delete(first)
    await store.multi([Create("/a/n_", b"2", sequential=True)])
    assert await store.children("/a") == ["n_0000000001"]


async def many_nodes_are_found_at_once(store: MetadataStore) -> None:
    await store.create("/a", b"0")
    await store.create("/b")
    found = await store.find_all(["/b", "/none", "/a"])
    assert [None if node is None else node[:2] for node in found] == [(None, 0), None, (b"0", 0)]
    assert await store.find_all([]) == []
    assert await store.find("/none") is None


async def a_multi_is_bounded(store: MetadataStore) -> None:
    await store.create("/a")
    with pytest.raises(ValueError, match="11 operations together"):
        await store.multi([SetData("/a", bytes(100_000))] * 11)
    assert await content(store, "/a") == (None, 0)


class Told:
    """What a store has told its listener."""

    def __init__(self, store: MetadataStore) -> None:
        self.paths: list[str] = []
        self._store = store
        self._mark = ""
        self._marks = 0
        self._marked = trio.Event()
        store.on_change = self._hear

    def _hear(self, path: str) -> None:
        if path == self._mark:
            self._marked.set()
        else:
            self.paths.append(path)

    async def since(self) -> set[str]:
        """The paths told of since the last call. A change of a node of its own is told last, and so ends the wait."""
        self._marks += 1
        self._mark = f"/mark-{self._marks}"
        self._marked = trio.Event()
        await self._store.find(self._mark, watch=True)
        await self._store.create(self._mark)
        with trio.fail_after(10):
            await self._marked.wait()
        paths = set(self.paths)
        self.paths.clear()
        return paths


async def watches_report_each_kind_of_change(store: MetadataStore) -> None:
    told = Told(store)
    await store.create("/parent")
    assert await store.find("/parent/a", watch=True) is None
    await store.children("/parent", watch=True)
    await store.create("/parent/a", b"0")
    assert await told.since() == {"/parent", "/parent/a"}
    await store.get("/parent/a", watch=True)
    await store.children("/parent", watch=True)
    await store.set("/parent/a", b"1")
    assert await told.since() == {"/parent/a"}
    await store.find_all(["/parent/a", "/parent/none"], watch=True)
    await store.delete("/parent/a")
    await store.create("/parent/none")
    assert await told.since() == {"/parent", "/parent/a", "/parent/none"}


async def a_watch_tells_once(store: MetadataStore) -> None:
    told = Told(store)
    await store.create("/a")
    await store.get("/a", watch=True)
    await store.set("/a", b"1")
    await store.set("/a", b"2")
    assert told.paths.count("/a") <= 1
    assert await told.since() == {"/a"}
    await store.set("/a", b"3")
    assert await told.since() == set()


async def watches_are_silent_when_nothing_changed(store: MetadataStore) -> None:
    told = Told(store)
    await store.create("/a")
    await store.get("/a", watch=True)
    await store.children("/a", watch=True)
    with pytest.raises(BadVersion):
        await store.multi([SetData("/a", b""), Check("/a", 9)])
    await store.get("/a")
    assert await told.since() == set()


async def who_is_told_reads_the_change(store: MetadataStore) -> None:
    told = Told(store)
    await store.create("/a")
    await store.get("/a", watch=True)
    await store.set("/a", b"1")
    assert await told.since() == {"/a"}
    assert await content(store, "/a") == (b"1", 1)


async def closing_twice_does_nothing(store: MetadataStore) -> None:
    await store.create("/a", ephemeral=True)
    await store.close()
    await store.close()


Conformance = Callable[[MetadataStore], Awaitable[None]]

CHECKS: tuple[Conformance, ...] = (
    a_created_node_is_read_back,
    null_data_and_empty_data_differ,
    the_root_exists,
    creating_twice_fails,
    creating_without_a_parent_fails,
    reading_what_is_not_there_fails,
    setting_counts_versions,
    setting_an_old_version_fails,
    setting_what_is_not_there_fails,
    a_node_created_again_counts_from_0,
    deleting_an_old_version_fails,
    deleting_a_parent_fails,
    children_are_sorted_names_of_the_next_level,
    a_tree_is_the_node_and_all_below_it,
    names_are_any_text_that_paths_allow,
    a_multi_does_everything_in_order,
    a_multi_that_fails_changes_nothing,
    paths_follow_zookeepers_rules,
    a_node_has_at_most_1000_kib,
    creations_are_numbered,
    nodes_know_when_they_were_created,
    an_ephemeral_node_has_an_owner,
    sequential_nodes_are_numbered_in_order,
    many_nodes_are_found_at_once,
    a_multi_is_bounded,
    watches_report_each_kind_of_change,
    a_watch_tells_once,
    watches_are_silent_when_nothing_changed,
    who_is_told_reads_the_change,
    closing_twice_does_nothing,
)
