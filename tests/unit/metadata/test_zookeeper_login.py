"""The login to ZooKeeper: where it is read, and a real server that demands it, has it otherwise, or knows none."""

import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from kazoo.client import KazooClient

from compat.zookeeper.zookeeper_server import ZookeeperServer, listening, sasl_flags, write_server_login
from kpy.errors import StorageError
from kpy.metadata.store import MetadataStore, StoreUnavailable
from kpy.metadata.zookeeper import ZookeeperStore
from kpy.metadata.zookeeper_config import Login, ZookeeperConfig, read_login

KAFKA = Login("kafka", 'sesam-öffne "dich"')
TOOLS = Login("tools", "other")
CONFIG = ZookeeperConfig("", session_timeout_ms=4_000, connection_timeout_ms=15_000, login=KAFKA)
MODULE = "org.apache.zookeeper.server.auth.DigestLoginModule"


@pytest.fixture(scope="module")
def login_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jaas") / "server.jaas"
    write_server_login(path, KAFKA, TOOLS)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, login_file: Path) -> Iterator[ZookeeperServer]:
    """One that has nobody in who has not logged in."""
    with listening(
        ZookeeperServer(tmp_path_factory.mktemp("zookeeper"), 500, sasl_flags(login_file, required=True))
    ) as server:
        yield server


async def refused(config: ZookeeperConfig) -> str:
    with pytest.raises(StorageError) as caught, trio.fail_after(30):
        await ZookeeperStore.connect(config)
    return str(caught.value)


def test_nodes_belong_to_the_login_as_apache_kafkas_do(server: ZookeeperServer) -> None:
    """ZkData.defaultAcls: all may read what is no secret, and none change it but what old consumers write."""
    chroot = f"/test/{uuid.uuid4().hex}"
    config = replace(
        CONFIG, connect=server.address + chroot, set_acl=True, secret_paths=("/secret",), open_paths=("/consumers",)
    )

    async def main() -> None:
        owner = await ZookeeperStore.connect(config)
        for path in ("/a", "/secret", "/secret/b", "/consumers", "/consumers/c"):
            await owner.create(path, b"1")
        assert await owner.set("/secret/b", b"2") == 1
        stranger = await ZookeeperStore.connect(replace(config, login=TOOLS))
        assert (await stranger.get("/a")).data == b"1"
        assert await stranger.set("/consumers", b"2") == 1
        for forbidden in (
            stranger.set("/a", b""),
            stranger.get("/secret/b"),
            stranger.find_all(["/a", "/secret/b"]),
            stranger.create("/a/b"),
        ):
            with pytest.raises(StorageError, match="ZooKeeper"):
                await forbidden
        await stranger.close()
        await owner.close()

    trio.run(main)
    mine, readable = ("sasl", "kafka", 31), ("world", "anyone", 1)
    assert acls(
        server, [chroot + path for path in ("", "/a", "/secret", "/secret/b", "/consumers", "/consumers/c")]
    ) == [
        [mine, readable],
        [mine, readable],
        [mine],
        [mine],
        [("world", "anyone", 31)],
        [mine, readable],
    ]


def acls(server: ZookeeperServer, paths: list[str]) -> list[list[tuple[str, str, int]]]:
    """Scheme, id and permissions of each."""
    options = {"mechanism": "DIGEST-MD5", "username": KAFKA.user, "password": KAFKA.password.encode("latin-1")}
    client = KazooClient(server.address, sasl_options=options)
    client.start()
    try:
        return [[(acl.id.scheme, acl.id.id, acl.perms) for acl in client.get_acls(path)[0]] for path in paths]
    finally:
        client.stop()
        client.close()


@pytest.mark.parametrize("chroot", ["", "/test"])
def test_a_start_with_a_wrong_password_fails_with_one_line(
    server: ZookeeperServer, chroot: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = Login(KAFKA.user, "wrong-password")
    said = trio.run(refused, replace(CONFIG, connect=server.address + chroot, login=wrong))
    assert re.fullmatch(
        r"ZooKeeper at \S+ has not authenticated 'kafka' by SASL .*: the password is wrong, or .*", said
    )
    assert "wrong-password" not in said + caplog.text + repr(CONFIG) + repr(wrong)


def test_a_start_without_the_login_that_zookeeper_demands_fails_with_one_line(server: ZookeeperServer) -> None:
    said = trio.run(refused, replace(CONFIG, connect=server.address, login=None))
    assert said.endswith("demands that clients authenticate by SASL (java.security.auth.login.config).")


def test_a_start_with_a_login_that_zookeeper_passes_over_fails_with_one_line(tmp_path: Path) -> None:
    """A server without SASL does not answer to it at all."""
    server = ZookeeperServer(tmp_path, 500)
    server.start()
    try:
        server.wait()
        said = trio.run(refused, replace(CONFIG, connect=server.address, session_timeout_ms=1_000))
        assert said.endswith("or the server has no SASL.")
    finally:
        server.close()


def test_a_login_that_is_refused_later_is_told_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "server.jaas"
    write_server_login(path, KAFKA)
    server = ZookeeperServer(tmp_path, 500, sasl_flags(path, required=True))
    server.start()

    async def restart(login: Login) -> None:
        await trio.to_thread.run_sync(server.kill)
        write_server_login(path, login)
        server.start()

    async def main() -> None:
        store = await ZookeeperStore.connect(replace(CONFIG, connect=server.address, connection_timeout_ms=5_000))
        try:
            await store.create("/a", ephemeral=True)
            before = store.session_id
            renewed = trio.Event()
            store.on_session = renewed.set
            await restart(Login(KAFKA.user, "another"))
            # The first may be told of the connection before it is refused.
            while not (said := await unavailable(store)).startswith("ZooKeeper at") or "by SASL" not in said:
                pass
            assert "by SASL" in await unavailable(store)
            await restart(KAFKA)
            await renewed.wait()
            assert store.session_id not in (0, before)
            await store.set("/", b"1")
        finally:
            await store.close()

    async def limited() -> None:
        with trio.fail_after(90):
            await main()

    try:
        server.wait()
        trio.run(limited)
    finally:
        server.close()
    refusals = [record for record in caplog.records if "by SASL" in record.getMessage()]
    assert len(refusals) == 1
    assert refusals[0].levelno == logging.ERROR
    assert sum("connected to" in record.getMessage() for record in caplog.records) <= 2


async def unavailable(store: MetadataStore) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await store.get("/")
    return str(caught.value)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_the_login_is_that_of_the_section_in_the_jaas_file(tmp_path: Path) -> None:
    path = write(tmp_path / "jaas", f'Client {{ {MODULE} required username="kafka" password="p"; }}; Other {{ }};')
    assert read_login(path, "Client", allowed=True) == Login("kafka", "p")
    assert read_login(path, "Missing", allowed=True) is None
    assert read_login(None, "Client", allowed=True) is None
    with pytest.raises(StorageError, match=r"which zookeeper\.sasl\.client=false would leave unused"):
        read_login(path, "Client", allowed=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "Client { com.sun.security.auth.module.Krb5LoginModule required; };",
            f"kpy logs in to ZooKeeper by one {MODULE}",
        ),
        ("Client { };", "kpy logs in to ZooKeeper by one"),
        (f"Client {{ {MODULE} required username=kafka; }};", "no username, or no password"),
        (f'Client {{ {MODULE} required username=kafka password="пароль"; }};', "must be of Latin-1's characters"),
        ("Client {\n", "cannot be understood: it ends where"),
    ],
)
def test_a_jaas_file_that_does_not_serve_stops_the_start(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "jaas", text)
    with pytest.raises(StorageError, match=r"java\.security\.auth\.login\.config=") as caught:
        read_login(path, "Client", allowed=True)
    assert problem in str(caught.value)
    assert "пароль" not in str(caught.value)


def test_a_jaas_file_that_is_not_there_or_no_text_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        read_login(str(tmp_path / "none"), "Client", allowed=True)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(StorageError, match="not UTF-8"):
        read_login(str(tmp_path / "binary"), "Client", allowed=True)
    (tmp_path / "large").write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(StorageError, match="more than 1048576 bytes"):
        read_login(str(tmp_path / "large"), "Client", allowed=True)
