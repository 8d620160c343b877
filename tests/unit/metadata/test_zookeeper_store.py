"""The store on a real Apache ZooKeeper: the conformance suite, and what only a shared store on a network has: lost
connections, lost answers, sessions that end.
"""

import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import store_conformance
import trio
import trio.testing
from kazoo.client import KazooClient
from zookeeper_proxy import Proxy

from compat.zookeeper.zookeeper_server import ZookeeperServer, listening
from kpy.errors import StorageError
from kpy.metadata.store import Check, Create, Delete, MetadataStore, NodeExists, SetData, StoreUnavailable
from kpy.metadata.zookeeper import ZookeeperStore
from kpy.metadata.zookeeper_config import ZookeeperConfig
from kpy.metadata.zookeeper_multi_read import MAX_NODES

CONFIG = ZookeeperConfig("", session_timeout_ms=10_000, connection_timeout_ms=15_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    with listening(ZookeeperServer(tmp_path_factory.mktemp("zookeeper"), tick_ms=500)) as server:
        yield server


@pytest.fixture
def proxy(server: ZookeeperServer) -> Iterator[Proxy]:
    with closing(Proxy(server.port)) as proxy:
        yield proxy


@asynccontextmanager
async def connected(address: str, chroot: str = "", **options: int) -> AsyncGenerator[ZookeeperStore]:
    """A store below a path of its own."""
    chroot = chroot or f"/test/{uuid.uuid4().hex}"
    store = await ZookeeperStore.connect(replace(CONFIG, connect=address + chroot, **options))
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await store.close()


def in_trio(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await test()

    trio.run(main)


@pytest.mark.parametrize("check", store_conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: store_conformance.Conformance, server: ZookeeperServer) -> None:
    async def main() -> None:
        async with connected(server.address) as store:
            await check(store)

    in_trio(main)


def chroot_of(store: ZookeeperStore) -> str:
    return store._config.chroot


def test_two_stores_share_a_tree_and_tell_each_other(server: ZookeeperServer) -> None:
    async def main() -> None:
        async with connected(server.address) as one, connected(server.address, chroot_of(one)) as two:
            heard = trio.Event()
            one.on_change = lambda path: heard.set() if path == "/a" else None
            assert await one.find("/a", watch=True) is None
            await two.create("/a", b"1", ephemeral=True)
            await heard.wait()
            node = await one.get("/a")
            assert (node.data, node.owner) == (b"1", two.session_id)
            assert one.session_id != two.session_id
            await two.close()
            assert await one.find("/a") is None

    in_trio(main)


async def told_everything(store: MetadataStore, proxy: Proxy) -> None:
    """Cuts the connection and waits until there is another."""
    reconnected = trio.Event()
    store.on_change = lambda path: reconnected.set() if path == "/" else None
    proxy.cut()
    await reconnected.wait()


def test_after_a_lost_connection_everything_may_have_changed(server: ZookeeperServer, proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(proxy.address) as store:
            await store.create("/session", b"", ephemeral=True)
            before = store.session_id
            await told_everything(store, proxy)
            assert store.session_id == before
            assert (await store.get("/session")).owner == before

    in_trio(main)


CHANGES: dict[str, Callable[[MetadataStore], Awaitable[object]]] = {
    "create": lambda store: store.create("/new", b"1"),
    "create ephemeral": lambda store: store.create("/new", b"1", ephemeral=True),
    "set": lambda store: store.set("/old", b"1", 0),
    "delete": lambda store: store.delete("/old"),
    "multi": lambda store: store.multi([Check("/fence", 0), Create("/new"), SetData("/new", b"1"), Delete("/old", 0)]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("lost", ["answer", "request"])
def test_a_change_whose_connection_is_lost_is_made_once(
    change: Callable[[MetadataStore], Awaitable[object]], lost: str, server: ZookeeperServer, proxy: Proxy
) -> None:
    """Whether the answer was lost or the request, the asker is told what happened: it was made."""

    async def main() -> None:
        async with connected(proxy.address) as store, connected(server.address, chroot_of(store)) as witness:
            await store.create("/old", b"0")
            await store.create("/fence")
            before = await store_conformance.snapshot(witness)
            proxy.drop_answers, proxy.drop_requests = lost == "answer", lost == "request"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change, store)
                if lost == "answer":
                    await changed(witness, before)
                else:
                    await trio.testing.wait_all_tasks_blocked(0.1)
                    assert await store_conformance.snapshot(witness) == before
                proxy.drop_answers = proxy.drop_requests = False
                proxy.cut()
            after = await store_conformance.snapshot(witness)
            assert after != before
            assert all(version <= 1 for _, version in after.values())

    in_trio(main)


async def changed(witness: MetadataStore, before: dict[str, tuple[bytes | None, int]]) -> None:
    """Waits for a change of the nodes "/", "/new" and "/old"."""
    heard = trio.Event()
    witness.on_change = lambda path: heard.set()
    for path in ("/new", "/old"):
        await witness.find(path, watch=True)
    if await store_conformance.snapshot(witness) == before:
        await heard.wait()


def test_a_change_that_somebody_else_was_faster_with_is_refused(server: ZookeeperServer, proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(proxy.address) as store, connected(server.address, chroot_of(store)) as other:
            await store.children("/")
            proxy.drop_requests = True
            async with trio.open_nursery() as nursery:

                async def create() -> None:
                    with pytest.raises(NodeExists):
                        await store.create("/a", b"mine")

                nursery.start_soon(create)
                await trio.testing.wait_all_tasks_blocked(0.1)
                await other.create("/a", b"theirs")
                proxy.drop_requests = False
                proxy.cut()
            assert (await store.get("/a")).data == b"theirs"

    in_trio(main)


def test_while_zookeeper_is_away_operations_wait_and_then_say_so(server: ZookeeperServer, proxy: Proxy) -> None:
    async def main() -> None:
        async with connected(proxy.address, connection_timeout_ms=1_000) as store:
            await store.create("/a")
            proxy.refuse = True
            proxy.cut()
            for operation in (store.get("/a"), store.set("/a", b"1"), store.find_all(["/a", "/b"])):
                with pytest.raises(StoreUnavailable, match="has not answered for 1000 ms"):
                    await operation
            back = trio.Event()
            store.on_change = lambda path: back.set()
            proxy.refuse = False
            await back.wait()
            assert await store.set("/a", b"2") == 1

    in_trio(main)


def test_an_expired_session_is_told_of_and_another_takes_its_place(server: ZookeeperServer) -> None:
    async def main() -> None:
        async with connected(server.address) as store:
            await store.create("/session", b"", ephemeral=True)
            before = store.session_id
            renewed = trio.Event()
            store.on_session = renewed.set
            await trio.to_thread.run_sync(end_session, server.address, store._client.client_id)
            await renewed.wait()
            assert store.session_id not in (0, before)
            assert await store.find("/session") is None
            await store.create("/session", b"", ephemeral=True)

    in_trio(main)


def end_session(address: str, client_id: tuple[int, bytes]) -> None:
    """Takes a session over, as a second process with the same one would, and closes it."""
    twin = KazooClient(address, client_id=client_id)
    twin.start()
    twin.stop()
    twin.close()


def test_a_session_ends_by_silence(server: ZookeeperServer, proxy: Proxy) -> None:
    async def main() -> None:
        options = {"session_timeout_ms": server.min_session_timeout_ms}
        async with connected(proxy.address, **options) as store, connected(server.address, chroot_of(store)) as witness:
            await store.create("/session", b"", ephemeral=True)
            gone = trio.Event()
            witness.on_change = lambda path: gone.set()
            await witness.get("/session", watch=True)
            renewed = trio.Event()
            store.on_session = renewed.set
            proxy.refuse = True
            proxy.cut()
            await gone.wait()
            proxy.refuse = False
            await renewed.wait()

    in_trio(main)


def test_what_waits_for_a_connection_goes_on_in_the_next_session(server: ZookeeperServer, proxy: Proxy) -> None:
    async def main() -> None:
        options = {"session_timeout_ms": server.min_session_timeout_ms}
        async with connected(proxy.address, **options) as store, connected(server.address, chroot_of(store)) as witness:
            await store.create("/session", b"", ephemeral=True)
            before = store.session_id
            gone = trio.Event()
            witness.on_change = lambda path: gone.set()
            await witness.get("/session", watch=True)
            proxy.refuse = True
            proxy.cut()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.create, "/new")
                await gone.wait()
                proxy.refuse = False
            assert store.session_id != before
            assert await witness.find("/new") is not None

    in_trio(main)


def test_a_zookeeper_that_does_not_answer_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        config = ZookeeperConfig("127.0.0.1:1", connection_timeout_ms=300)
        with pytest.raises(StorageError, match=r"ZooKeeper at 127\.0\.0\.1:1 does not answer"):
            await ZookeeperStore.connect(config)

    in_trio(main)


def test_thousands_of_nodes_are_found_in_their_order(server: ZookeeperServer) -> None:
    count = 2 * MAX_NODES + 1

    async def main() -> None:
        async with connected(server.address) as store:
            assert await store.find_all([]) == []
            await store.multi([Create(f"/{number}", str(number).encode()) for number in range(0, count, 2)])
            await store.create("/null", ephemeral=True)
            nodes = await store.find_all([*(f"/{number}" for number in range(count)), "/null"])
            assert nodes == [*[await store.find(f"/{number}") for number in range(count)], await store.get("/null")]
            assert [node and node.data for node in nodes[:3]] == [b"0", None, b"2"]

    in_trio(main)


def test_a_server_older_than_multi_read_is_read_node_by_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ZooKeeper 3.5, which answers to what it does not know by closing the connection."""
    caplog.set_level(logging.INFO)
    server = ZookeeperServer(tmp_path, 500, kafka_version="2.8.2")
    server.start()

    async def main() -> None:
        async with connected(server.address) as store:
            await store.create("/a", b"1", ephemeral=True)
            for _ in range(2):
                (found, missing) = await store.find_all(["/a", "/b"])
                assert found is not None
                assert (found.data, found.owner) == (b"1", store.session_id)
                assert missing is None

    try:
        server.wait()
        in_trio(main)
    finally:
        server.close()
    assert [record.getMessage() for record in caplog.records if "older than 3.6" in record.getMessage()] == [
        f"ZooKeeper ({server.address}) is older than 3.6: nodes are read one by one"
    ]
