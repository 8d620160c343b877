"""What every MetadataStore must do, as a table of checks over a store that a factory makes.

An implementation's test module parametrizes a test over `CHECKS` and hands each one a fresh store: see
test_embedded_store.py.
"""

from collections.abc import Callable

import pytest

from kpy.metadata.store import (
    MAX_NODE_BYTES,
    BadVersion,
    Check,
    Create,
    Delete,
    MetadataStore,
    Node,
    NodeExists,
    NoNode,
    NotEmpty,
    SetData,
)


def a_created_node_is_read_back(store: MetadataStore) -> None:
    store.create("/a", b"data")
    assert store.exists("/a")
    assert store.get("/a") == Node(b"data", 0)


def null_data_and_empty_data_differ(store: MetadataStore) -> None:
    store.create("/null")
    store.create("/empty", b"")
    assert store.get("/null").data is None
    assert store.get("/empty").data == b""


def the_root_exists(store: MetadataStore) -> None:
    assert store.exists("/")
    assert store.children("/") == []


def creating_twice_fails(store: MetadataStore) -> None:
    store.create("/a", b"first")
    with pytest.raises(NodeExists) as caught:
        store.create("/a", b"second")
    assert caught.value.path == "/a"
    assert store.get("/a") == Node(b"first", 0)


def creating_without_a_parent_fails(store: MetadataStore) -> None:
    with pytest.raises(NoNode) as caught:
        store.create("/a/b", b"")
    assert caught.value.path == "/a"
    assert not store.exists("/a/b")


def reading_what_is_not_there_fails(store: MetadataStore) -> None:
    assert not store.exists("/a")
    for read in (store.get, store.children, store.tree):
        with pytest.raises(NoNode):
            read("/a")


def setting_counts_versions(store: MetadataStore) -> None:
    store.create("/a", b"0")
    assert store.set("/a", b"1") == 1
    assert store.set("/a", b"2", 1) == 2
    assert store.set("/a", None, 2) == 3
    assert store.get("/a") == Node(None, 3)


def setting_an_old_version_fails(store: MetadataStore) -> None:
    store.create("/a", b"0")
    store.set("/a", b"1", 0)
    with pytest.raises(BadVersion) as caught:
        store.set("/a", b"2", 0)
    assert caught.value.path == "/a"
    assert store.get("/a") == Node(b"1", 1)


def setting_what_is_not_there_fails(store: MetadataStore) -> None:
    with pytest.raises(NoNode):
        store.set("/a", b"")


def a_node_created_again_counts_from_0(store: MetadataStore) -> None:
    store.create("/a", b"0")
    store.set("/a", b"1")
    store.delete("/a", 1)
    assert not store.exists("/a")
    store.create("/a", b"2")
    assert store.get("/a") == Node(b"2", 0)


def deleting_an_old_version_fails(store: MetadataStore) -> None:
    store.create("/a")
    store.set("/a", b"1")
    with pytest.raises(BadVersion):
        store.delete("/a", 0)
    assert store.exists("/a")


def deleting_a_parent_fails(store: MetadataStore) -> None:
    store.create("/a")
    store.create("/a/b")
    with pytest.raises(NotEmpty):
        store.delete("/a")
    store.delete("/a/b")
    store.delete("/a")
    with pytest.raises(NoNode):
        store.delete("/a")


def children_are_sorted_names_of_the_next_level(store: MetadataStore) -> None:
    for path in ("/a", "/a/z", "/a/b", "/a/b/deep", "/a-sibling", "/a0"):
        store.create(path)
    assert store.children("/a") == ["b", "z"]
    assert store.children("/") == ["a", "a-sibling", "a0"]
    assert store.children("/a/b/deep") == []


def a_tree_is_the_node_and_all_below_it(store: MetadataStore) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/a/b.d", "/a/b-", "/a.b", "/a0", "/b"):
        store.create(path, path.encode())
    store.set("/a/b/c", b"new")
    assert store.tree("/a") == {
        "/a": Node(b"/a", 0),
        "/a/b": Node(b"/a/b", 0),
        "/a/b/c": Node(b"new", 1),
        "/a/b.d": Node(b"/a/b.d", 0),
        "/a/b-": Node(b"/a/b-", 0),
    }
    assert set(store.tree("/a/b")) == {"/a/b", "/a/b/c"}
    assert len(store.tree("/")) == 9


def names_are_any_text_that_paths_allow(store: MetadataStore) -> None:
    for name in ("%", "_", "a b", "<default>", "..x", "x.", "\u00e9\u4e2d", "'; DROP"):
        store.create(f"/{name}", name.encode())
        assert store.get(f"/{name}").data == name.encode()


def a_multi_does_everything_in_order(store: MetadataStore) -> None:
    store.create("/old", b"")
    store.multi([Create("/a", b"0"), Create("/a/b"), SetData("/a", b"1", 0), Check("/a", 1), Delete("/old")])
    assert store.get("/a") == Node(b"1", 1)
    assert store.exists("/a/b")
    assert not store.exists("/old")


def a_multi_that_fails_changes_nothing(store: MetadataStore) -> None:
    store.create("/a", b"0")
    for last, error in (
        (Create("/a"), NodeExists),
        (Create("/none/b"), NoNode),
        (SetData("/a", b"", 0), BadVersion),
        (Check("/a", 7), BadVersion),
        (Check("/none", 0), NoNode),
        (Delete("/c"), NotEmpty),
    ):
        with pytest.raises(error):
            store.multi([SetData("/a", b"1"), Create("/c"), Create("/c/d"), last])
        assert store.tree("/") == {"/": store.get("/"), "/a": Node(b"0", 0)}


def paths_follow_zookeepers_rules(store: MetadataStore) -> None:
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
            store.create(path)
        with pytest.raises(ValueError, match="path"):
            store.exists(path)


def a_node_has_at_most_1_mib(store: MetadataStore) -> None:
    path = "/a"
    most = bytes(MAX_NODE_BYTES - len(path))
    store.create(path, most)
    assert store.get(path).data == most
    with pytest.raises(ValueError, match="1048577 bytes"):
        store.set(path, most + b"x")
    with pytest.raises(ValueError, match="1048577 bytes"):
        store.create("/b", most + b"x")
    assert store.get(path).version == 0
    assert not store.exists("/b")


def watches_report_each_kind_of_change(store: MetadataStore) -> None:
    seen: list[str] = []
    store.create("/parent")
    store.watch("/parent", lambda path: seen.append(f"parent {path}"))
    store.watch("/parent/a", lambda path: seen.append(f"child {path}"))

    def reported() -> set[str]:
        changes = set(seen)
        seen.clear()
        return changes

    store.create("/parent/a", b"0")
    assert reported() == {"parent /parent", "child /parent/a"}
    store.set("/parent/a", b"1")
    assert reported() == {"child /parent/a"}
    store.create("/parent/a/b")
    assert reported() == {"child /parent/a"}
    store.set("/parent/a/b", b"1")
    assert reported() == set()
    store.multi([Delete("/parent/a/b"), Delete("/parent/a")])
    assert reported() == {"parent /parent", "child /parent/a"}


def watches_are_silent_when_nothing_changed(store: MetadataStore) -> None:
    store.create("/a")
    seen: list[str] = []
    store.watch("/a", seen.append)
    with pytest.raises(BadVersion):
        store.multi([SetData("/a", b""), Check("/a", 9)])
    store.get("/a")
    assert seen == []


def a_watch_sees_the_change(store: MetadataStore) -> None:
    seen: list[Node] = []
    store.create("/a")
    store.watch("/a", lambda path: seen.append(store.get(path)))
    store.set("/a", b"1")
    assert seen == [Node(b"1", 1)]


def closing_twice_does_nothing(store: MetadataStore) -> None:
    store.create("/a", ephemeral=True)
    store.close()
    store.close()


CHECKS: tuple[Callable[[MetadataStore], None], ...] = (
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
    a_node_has_at_most_1_mib,
    watches_report_each_kind_of_change,
    watches_are_silent_when_nothing_changed,
    a_watch_sees_the_change,
    closing_twice_does_nothing,
)
