"""The metadata store of a cluster: Apache ZooKeeper, through kazoo.

Theory of operation. kazoo keeps the session in threads of its own: it sends heartbeats, finds another server when one
is lost, and asks for a new session when the old one has expired. Requests are handed to it from the trio thread, and
what it has to say (answers, watches, the state of the connection) comes back there by `run_sync_soon`, so nothing here
is touched by two threads. At most `max_in_flight` requests are under way.

While there is no connection, operations wait for one: `timeout_ms` in all, then StoreUnavailable. A read whose answer
was lost with the connection is asked again. A change whose answer was lost may have been made: the node it changes
tells (`_was_made`), and only if it was not is it made again. A watch is lost with the connection, so a new connection
tells `on_change` that everything may have changed.

ZooKeeper counts a session's time from the last heartbeat it got. When it has expired, its ephemeral nodes are gone
already; `on_session` is told once the new session stands.
"""

import importlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from kpy.errors import StorageError
from kpy.metadata.store import (
    ANY_VERSION,
    BadVersion,
    Check,
    Create,
    Delete,
    Node,
    NodeExists,
    NoNode,
    NotEmpty,
    Op,
    SetData,
    StoreUnavailable,
    check_multi_size,
    ignore_path,
    ignore_session,
    validate_path,
    with_parents,
)

log = logging.getLogger("kpy.metadata")

EVERYTHING = "/"
RETRY_DELAY_S = 0.1
MAX_RETRY_DELAY_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ZookeeperConfig:
    """How to reach ZooKeeper: Apache Kafka's keys that begin with `zookeeper.`."""

    connect: str
    """host:port, several separated by commas, and perhaps a path below which all nodes are (chroot)."""
    session_timeout_ms: int = 18_000
    connection_timeout_ms: int = 18_000
    max_in_flight: int = 10
    set_acl: bool = False
    """Whether nodes can be changed only by whoever this broker has authenticated as. Anybody may read most of them."""
    tls: bool = False
    certificate_file: str | None = None
    """PEM: the broker's certificate and its private key."""
    key_password: str | None = None
    trusted_file: str | None = None
    """PEM: the certificates that vouch for ZooKeeper's."""
    check_hostname: bool = True
    auth: tuple[tuple[str, str], ...] = ()
    """Schemes and credentials, such as ("digest", "user:password")."""
    secret_paths: tuple[str, ...] = ()
    """Where nodes, and those below, are not for everybody to read when `set_acl`."""

    @property
    def hosts(self) -> str:
        return self.connect.partition("/")[0]

    @property
    def chroot(self) -> str:
        """A path without a slash at its end; empty for none."""
        return self.connect[len(self.hosts) :].rstrip("/")


class ZookeeperStore:
    """A MetadataStore in ZooKeeper. Made by `connect`, in the trio run that uses it."""

    def __init__(self, config: ZookeeperConfig) -> None:
        self._config = config
        self._token = trio.lowlevel.current_trio_token()
        self._slots = trio.CapacityLimiter(config.max_in_flight)
        self._connected = trio.Event()
        self._is_closed = False
        self._session_id = 0
        self.on_change: Callable[[str], None] = ignore_path
        self.on_session: Callable[[], None] = ignore_session
        self._exceptions: Any = importlib.import_module("kazoo.exceptions")
        self._requests: Any = importlib.import_module("kazoo.protocol.serialization")
        self._client: Any = importlib.import_module("kazoo.client").KazooClient(
            hosts=config.hosts,
            timeout=config.session_timeout_ms / 1000,
            connection_retry={"max_tries": -1, "delay": RETRY_DELAY_S, "max_delay": MAX_RETRY_DELAY_S},
            logger=_quiet_logger(),
            auth_data=list(config.auth),
            use_ssl=config.tls,
            certfile=config.certificate_file,
            keyfile=config.certificate_file,
            keyfile_password=config.key_password,
            ca=config.trusted_file,
            check_hostname=config.check_hostname,
        )
        self._client.add_listener(self._state_changed)
        self._acls = _acls(config.set_acl)

    @classmethod
    async def connect(cls, config: ZookeeperConfig) -> "ZookeeperStore":
        """A session, with the chroot made if it is missing. Raises StorageError if there is none in time."""
        store = cls(config)
        await trio.to_thread.run_sync(store._client.start_async)
        is_ready = False
        try:
            with trio.move_on_after(config.connection_timeout_ms / 1000):
                await store._connected.wait()
            if not store._connected.is_set():
                raise StorageError(
                    f"ZooKeeper at {config.hosts} does not answer: no session within {config.connection_timeout_ms} ms"
                    " (zookeeper.connection.timeout.ms)."
                )
            await store._make_chroot()
            is_ready = True
        finally:
            if not is_ready:
                with trio.CancelScope(shield=True):
                    await store.close()
        return store

    @property
    def session_id(self) -> int:
        return self._session_id

    # -- reading -----------------------------------------------------------------------------------------------------

    async def get(self, path: str, *, watch: bool = False) -> Node:
        full = self._full(path)
        try:
            data, stat = await self._read(lambda: self._client.get_async(full, watch=self._watcher(watch)))
        except self._exceptions.NoNodeError:
            raise NoNode(path) from None
        return _node(data, stat)

    async def find(self, path: str, *, watch: bool = False) -> Node | None:
        while True:
            try:
                return await self.get(path, watch=watch)
            except NoNode:
                if not watch:
                    return None
            full = self._full(path)
            # Only a look for its existence leaves a watch on a node that is not there.
            if await self._read(lambda full=full: self._client.exists_async(full, watch=self._watcher(watch))) is None:
                return None

    async def find_all(self, paths: Iterable[str], *, watch: bool = False) -> list[Node | None]:
        return await self._all([partial(self.find, path, watch=watch) for path in paths])

    async def children(self, path: str, *, watch: bool = False) -> list[str]:
        full = self._full(path)
        try:
            names: list[str] = await self._read(
                lambda: self._client.get_children_async(full, watch=self._watcher(watch))
            )
        except self._exceptions.NoNodeError:
            raise NoNode(path) from None
        return sorted(names)

    async def tree(self, path: str) -> dict[str, Node]:
        nodes = {path: await self.get(path)}
        level = [path]
        while level:
            names = await self._all([partial(self._children_if_any, parent) for parent in level])
            level = [
                f"{parent.rstrip('/')}/{name}"
                for parent, children in zip(level, names, strict=True)
                for name in children
            ]
            found = await self.find_all(level)
            level = [path for path, node in zip(level, found, strict=True) if node is not None]
            nodes.update((path, node) for path, node in zip(level, filter(None, found), strict=True))
        return nodes

    async def _children_if_any(self, path: str) -> list[str]:
        try:
            return await self.children(path)
        except NoNode:
            return []

    async def _all(self, reads: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """The results of all, in their order; as many are under way as requests may be."""
        results: list[Any] = [None] * len(reads)
        waiting = iter(enumerate(reads))

        async def work() -> None:
            for index, read in waiting:
                results[index] = await read()

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(min(len(reads), self._config.max_in_flight)):
                    nursery.start_soon(work)
        except BaseExceptionGroup as group:
            failed = group.split(Exception)[0]
            if failed is None:
                raise
            raise _first(failed) from None
        return results

    # -- changing ----------------------------------------------------------------------------------------------------

    async def create(
        self, path: str, data: bytes | None = None, *, ephemeral: bool = False, sequential: bool = False
    ) -> str:
        (created,) = await self._change([Create(path, data, ephemeral, sequential)])
        return path if created is None else str(created)[len(self._config.chroot) :]

    async def set(self, path: str, data: bytes | None, version: int = ANY_VERSION) -> int:
        (stat,) = await self._change([SetData(path, data, version)])
        # Whose answer was lost, and whose node shows that it was made, made the version after the one it asked for.
        return version + 1 if stat is None else int(stat.version)

    async def delete(self, path: str, version: int = ANY_VERSION) -> None:
        await self._change([Delete(path, version)])

    async def multi(self, ops: Sequence[Op]) -> None:
        await self._change(ops)

    async def _change(self, ops: Sequence[Op]) -> list[Any]:
        """The results of the operations: paths, stats, True; None for each where they are not known any more."""
        check_multi_size(ops)
        requests = [self._request(op) for op in ops]
        deadline = trio.current_time() + self._timeout_s
        in_doubt = False
        while True:
            await self._wait_for_connection(deadline)
            if in_doubt and await self._was_made(ops):
                return [None] * len(ops)
            try:
                results = await self._ask(lambda: self._submit(requests), deadline)
            except self._lost:
                in_doubt = True
                continue
            self._raise_first_error(ops, results)
            return results

    async def _was_made(self, ops: Sequence[Op]) -> bool:
        """Whether operations, of which all were carried out or none, were. One of them that leaves a trace tells.

        Where a trace has been covered by somebody else's change both answers are right: whoever made that change saw
        what was there, and who asks here is told of another version.
        """
        await self._read(lambda: self._client.sync_async(self._full("/")))
        for op in ops:
            match op:
                case Create(sequential=False):
                    node = await self.find(op.path)
                    owner = self._session_id if op.ephemeral else 0
                    changed_later = any(isinstance(other, SetData) and other.path == op.path for other in ops)
                    return node is not None and node.owner == owner and (changed_later or node.data == op.data)
                case SetData():
                    node = await self.find(op.path)
                    expected = node is not None and (op.version == ANY_VERSION or node.version == op.version + 1)
                    return expected and node is not None and node.data == op.data
                case Delete():
                    return await self.find(op.path) is None
                case _:
                    continue
        return False

    def _submit(self, requests: Sequence[Any]) -> Any:
        transaction = self._client.transaction()
        # Its own methods refuse null data, which is what Apache Kafka's structural nodes have.
        transaction.operations.extend(requests)
        return transaction.commit_async()

    def _request(self, op: Op) -> Any:
        full = self._full(op.path)
        match op:
            case Create():
                flags = op.ephemeral * 1 | op.sequential * 2
                return self._requests.Create(full, op.data, self._acl_of(op.path), flags)
            case SetData():
                return self._requests.SetData(full, op.data, op.version)
            case Delete():
                return self._requests.Delete(full, op.version)
            case Check():
                return self._requests.CheckVersion(full, op.version)

    def _raise_first_error(self, ops: Sequence[Op], results: Sequence[Any]) -> None:
        known = self._exceptions
        for op, result in zip(ops, results, strict=True):
            if not isinstance(result, Exception) or isinstance(
                result, known.RolledBackError | known.RuntimeInconsistency
            ):
                continue
            if isinstance(result, known.NodeExistsError):
                raise NodeExists(op.path)
            if isinstance(result, known.NoNodeError):
                raise NoNode(op.path.rpartition("/")[0] if isinstance(op, Create) else op.path)
            if isinstance(result, known.BadVersionError):
                raise BadVersion(op.path)
            if isinstance(result, known.NotEmptyError):
                raise NotEmpty(op.path)
            raise StorageError(f"ZooKeeper refuses to change {op.path}: {type(result).__name__}.")

    # -- the session -------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        await trio.to_thread.run_sync(self._stop)

    def _stop(self) -> None:
        self._client.stop()
        self._client.close()

    def _state_changed(self, state: str) -> None:
        """Called in a thread of kazoo's."""
        client_id = self._client.client_id
        session_id = client_id[0] if state == "CONNECTED" and client_id is not None else 0
        self._soon(self._follow_state, state, session_id)

    def _follow_state(self, state: str, session_id: int) -> None:
        if self._is_closed:
            return
        if state != "CONNECTED":
            # The end of a session is told after the loss of its connection: who waits since then goes on waiting.
            if self._connected.is_set():
                log.warning("no connection to ZooKeeper (%s)", self._config.hosts)
                self._connected = trio.Event()
            return
        before, self._session_id = self._session_id, session_id
        log.info("connected to ZooKeeper (%s), session 0x%x", self._config.hosts, session_id)
        self._connected.set()
        if before == session_id:
            self.on_change(EVERYTHING)
        elif before:
            log.warning("the session 0x%x with ZooKeeper has ended; 0x%x has taken its place", before, session_id)
            self.on_session()

    def _watcher(self, wanted: bool) -> Callable[[Any], None] | None:
        return self._watch_fired if wanted else None

    def _watch_fired(self, event: Any) -> None:
        """Called in a thread of kazoo's. Without a path it tells of the connection, which has its own listener."""
        if event.path is not None:
            self._soon(self._tell, event.path[len(self._config.chroot) :] or "/")

    def _tell(self, path: str) -> None:
        if not self._is_closed:
            self.on_change(path)

    def _soon(self, told: Callable[..., None], *values: object) -> None:
        try:
            self._token.run_sync_soon(told, *values)
        except trio.RunFinishedError:
            return  # The broker has stopped, and nobody listens any more.

    # -- requests ----------------------------------------------------------------------------------------------------

    @property
    def _timeout_s(self) -> float:
        return self._config.connection_timeout_ms / 1000

    @property
    def _lost(self) -> tuple[type[Exception], ...]:
        """What kazoo raises when a request's answer will not come."""
        known = self._exceptions
        return (
            known.ConnectionLoss,
            known.ConnectionClosedError,
            known.SessionExpiredError,
            known.OperationTimeoutError,
        )

    async def _read(self, start: Callable[[], Any]) -> Any:
        deadline = trio.current_time() + self._timeout_s
        while True:
            await self._wait_for_connection(deadline)
            try:
                return await self._ask(start, deadline)
            except self._lost:
                continue

    async def _wait_for_connection(self, deadline: float) -> None:
        if self._is_closed:
            raise StoreUnavailable("The session with ZooKeeper has been closed.")
        while not self._connected.is_set():
            with trio.move_on_at(deadline) as waiting:
                await self._connected.wait()
            if waiting.cancelled_caught:
                self._give_up()

    async def _ask(self, start: Callable[[], Any], deadline: float) -> Any:
        """The answer to a request that `start` hands to kazoo. Raises what kazoo does, and StoreUnavailable."""
        answered = trio.Event()
        async with self._slots:
            result = start()
            result.rawlink(partial(self._answer_came, answered))
            with trio.move_on_at(deadline):
                await answered.wait()
        if not answered.is_set():
            self._give_up()
        try:
            return result.get(block=False)
        except self._exceptions.NoAuthError:
            raise StorageError(
                "ZooKeeper does not allow this broker what it asks for; see zookeeper.set.acl."
            ) from None
        except self._exceptions.AuthFailedError:
            raise StorageError("ZooKeeper does not accept this broker's credentials.") from None

    def _answer_came(self, answered: trio.Event, _: object) -> None:
        """Called in a thread of kazoo's."""
        self._soon(answered.set)

    def _give_up(self) -> None:
        raise StoreUnavailable(
            f"ZooKeeper at {self._config.hosts} has not answered for {self._config.connection_timeout_ms} ms."
        )

    # -- paths and permissions ---------------------------------------------------------------------------------------

    def _full(self, path: str) -> str:
        validate_path(path)
        if not self._config.chroot:
            return path
        return self._config.chroot if path == "/" else self._config.chroot + path

    async def _make_chroot(self) -> None:
        """Makes the path that all others are below. It is not itself below it."""
        if not self._config.chroot:
            return
        for path in with_parents([self._config.chroot]):
            try:
                await self._read(partial(self._client.create_async, path, None, acl=self._acls[0]))
            except self._exceptions.NodeExistsError:
                continue

    def _acl_of(self, path: str) -> Any:
        everybody_may_read, nobody_else = self._acls
        secret = any(path == above or path.startswith(f"{above}/") for above in self._config.secret_paths)
        return nobody_else if secret else everybody_may_read


def _acls(set_acl: bool) -> tuple[Any, Any]:
    """ACLs of nodes that everybody may read, and of those that only this broker's identity may."""
    security: Any = importlib.import_module("kazoo.security")
    if not set_acl:
        return security.OPEN_ACL_UNSAFE, security.OPEN_ACL_UNSAFE
    return [*security.CREATOR_ALL_ACL, *security.READ_ACL_UNSAFE], security.CREATOR_ALL_ACL


def _node(data: bytes | None, stat: Any) -> Node:
    return Node(data, stat.version, stat.czxid, stat.ephemeralOwner, stat.ctime)


def _quiet_logger() -> logging.Logger:
    """kazoo tells of each attempt to connect. This store tells when the connection goes and comes."""
    logger = logging.getLogger("kpy.metadata.kazoo")
    logger.setLevel(logging.CRITICAL)
    return logger


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
