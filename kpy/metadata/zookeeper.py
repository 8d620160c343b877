"""The metadata store of a cluster: Apache ZooKeeper, through kazoo.

Theory of operation. kazoo keeps the session in threads of its own: it sends heartbeats, finds another server when one
is lost, and asks for a new session when the old one has expired. Requests are handed to it from the trio thread, and
what it has to say (answers, watches, the state of the connection) comes back there by `run_sync_soon`, so nothing here
is touched by two threads. At most `max_in_flight` requests are under way.

While there is no connection, operations wait for one: `timeout_ms` in all, then StoreUnavailable. A read whose answer
was lost with the connection is asked again. A change whose answer was lost may have been made: the node it changes
tells (`_was_made`), and only if it was not is it made again. A watch is lost with the connection, so a new connection
tells `on_change` that everything may have changed.

kazoo takes a session for a connection, though ZooKeeper may not let in who has it: here it is one when a first request
has been answered. Where ZooKeeper refuses the broker, kazoo gives up for good. A start then says so and fails. Later
that may be a server which was stopped in the middle of it: the log says it once, and it is tried again.

ZooKeeper counts a session's time from the last heartbeat it got. When it has expired, its ephemeral nodes are gone
already; `on_session` is told once the new session stands.
"""

import importlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
from kpy.metadata.zookeeper_client import acl_of, lost_errors, new_client, submit, why_refused
from kpy.metadata.zookeeper_config import ZookeeperConfig
from kpy.metadata.zookeeper_multi_read import MAX_NODES, NO_AUTH, NO_NODE, MultiRead

log = logging.getLogger("kpy.metadata")

EVERYTHING = "/"
REFUSED_RETRY_DELAY_S = 1.0
FORBIDDEN = "ZooKeeper does not allow this broker what it asks for; see zookeeper.set.acl."

T = TypeVar("T")


class ZookeeperStore:
    """A MetadataStore in ZooKeeper. Made by `connect`, in the trio run that uses it."""

    def __init__(self, config: ZookeeperConfig) -> None:
        self._config = config
        self._token = trio.lowlevel.current_trio_token()
        self._slots = trio.CapacityLimiter(config.max_in_flight)
        self._connected = trio.Event()
        self._is_closed = False
        self._is_starting = True
        self._stopping = threading.Event()
        self._session_id = 0
        self._has_multi_read = True
        self._connection_number = 0
        """Counts what kazoo says of its connection, so that an answer of an earlier one tells nothing."""
        self._refusal: str | None = None
        """Why ZooKeeper does not let this broker in."""
        self._is_unanswered = False
        """Whether there was a session without an answer to any request, since there was a connection last."""
        self.on_change: Callable[[str], None] = ignore_path
        self.on_session: Callable[[], None] = ignore_session
        self._lost = lost_errors()
        self._exceptions: Any = importlib.import_module("kazoo.exceptions")
        self._requests: Any = importlib.import_module("kazoo.protocol.serialization")
        self._client: Any = new_client(config, self._keep_connected)
        self._client.add_listener(self._state_changed)

    @classmethod
    async def connect(cls, config: ZookeeperConfig) -> "ZookeeperStore":
        """A session, with the chroot made if it is missing. Raises StorageError if there is none in time."""
        store = cls(config)
        await trio.to_thread.run_sync(store._client.start_async)
        is_ready = False
        try:
            with trio.move_on_after(config.connection_timeout_ms / 1000):
                await store._connected.wait()
            if store._refusal is not None:
                raise StorageError(store._refusal)
            if not store._connected.is_set():
                raise StorageError(
                    store._not_let_in()
                    or f"ZooKeeper at {config.hosts} does not answer: no session within {config.connection_timeout_ms}"
                    " ms (zookeeper.connection.timeout.ms)."
                )
            await store._make_chroot()
            store._is_starting = False
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
        if watch or not self._has_multi_read:
            return await self._all([partial(self.find, path, watch=watch) for path in paths])
        paths = list(paths)
        parts = [paths[start : start + MAX_NODES] for start in range(0, len(paths), MAX_NODES)]
        return [node for found in await self._all([partial(self._find_part, part) for part in parts]) for node in found]

    async def _find_part(self, paths: Sequence[str]) -> list[Node | None]:
        request = MultiRead([self._full(path) for path in paths])
        try:
            found = await self._read(partial(submit, self._client, request))
        except self._exceptions.UnimplementedError:
            log.info("ZooKeeper (%s) is older than 3.6: nodes are read one by one", self._config.hosts)
            self._has_multi_read = False
            return await self.find_all(paths)
        return [self._found(path, node) for path, node in zip(paths, found, strict=True)]

    def _found(self, path: str, node: Node | int) -> Node | None:
        if isinstance(node, Node):
            return node
        if node == NO_NODE:
            return None
        raise StorageError(FORBIDDEN if node == NO_AUTH else f"ZooKeeper refuses to read {path}: error {node}.")

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
                return self._requests.Create(full, op.data, acl_of(self._config, op.path), flags)
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
        self._stopping.set()
        self._client.stop()
        self._client.close()

    def _keep_connected(self, connect: Callable[[], None]) -> None:
        """The thread in which kazoo holds the connection. `connect` returns when kazoo does not try on."""
        while True:
            try:
                connect()
            except self._exceptions.KazooException as error:
                refusal = why_refused(self._config, error)
            else:
                refusal = why_refused(self._config)
            if self._stopping.is_set():
                return
            self._soon(self._refused, refusal)
            if self._stopping.wait(REFUSED_RETRY_DELAY_S):
                return

    def _refused(self, why: str) -> None:
        if self._is_closed:
            return
        if self._is_starting:
            self._refusal = why
            self._connected.set()  # For who waits: there is no more to wait for.
        elif self._refusal is None:
            self._refusal = why
            log.error("%s The broker tries on.", why)

    def _state_changed(self, state: str) -> None:
        """Called in a thread of kazoo's."""
        client_id = self._client.client_id
        session_id = client_id[0] if state == "CONNECTED" and client_id is not None else 0
        self._soon(self._follow_state, state, session_id)

    def _follow_state(self, state: str, session_id: int) -> None:
        if self._is_closed:
            return
        self._connection_number += 1
        if state == "CONNECTED":
            self._is_unanswered = True
            answered = partial(self._soon, self._first_answer_came, self._connection_number, session_id)
            self._client.exists_async("/").rawlink(answered)
        elif self._connected.is_set() and self._refusal is None:
            # The end of a session is told after the loss of its connection: who waits since then goes on waiting.
            log.warning("no connection to ZooKeeper (%s)", self._config.hosts)
            self._connected = trio.Event()

    def _first_answer_came(self, connection_number: int, session_id: int, result: Any) -> None:
        if self._is_closed or connection_number != self._connection_number:
            return
        if isinstance(result.exception, self._exceptions.SessionClosedRequireSaslError):
            self._refused(why_refused(self._config, result.exception))
        elif result.exception is None:
            self._refusal, self._is_unanswered = None, False
            self._take_connection(session_id)

    def _take_connection(self, session_id: int) -> None:
        before, self._session_id = self._session_id, session_id
        log.info("connected to ZooKeeper (%s), session 0x%x", self._config.hosts, session_id)
        self._connected.set()
        if before == session_id:
            self.on_change(EVERYTHING)
        elif before:
            log.warning("the session 0x%x with ZooKeeper has ended; 0x%x has taken its place", before, session_id)
            self.on_session()

    def _not_let_in(self) -> str | None:
        """Why there is no connection, if ZooKeeper has given a session and not answered in it: a server without SASL
        passes over the request for it.
        """
        if self._refusal is not None or not (self._is_unanswered and self._config.login):
            return self._refusal
        return why_refused(self._config)

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
        if self._is_starting and self._refusal is not None:
            raise StorageError(self._refusal)

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
            raise StorageError(FORBIDDEN) from None

    def _answer_came(self, answered: trio.Event, _: object) -> None:
        """Called in a thread of kazoo's."""
        self._soon(answered.set)

    def _give_up(self) -> None:
        raise StoreUnavailable(
            self._not_let_in()
            or f"ZooKeeper at {self._config.hosts} has not answered for {self._config.connection_timeout_ms} ms."
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
            # To create what exists is forbidden, too, where others own what is above.
            if await self._read(partial(self._client.exists_async, path)) is not None:
                continue
            try:
                await self._read(partial(self._client.create_async, path, None, acl=acl_of(self._config, "")))
            except self._exceptions.NodeExistsError:
                continue


def _node(data: bytes | None, stat: Any) -> Node:
    return Node(data, stat.version, stat.czxid, stat.ephemeralOwner, stat.ctime)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
