"""The one table of what kpy serves, and the path of every request: header, codec, handler, answer.

A row is an API key, a name and a range of versions. The name leads to everything else: its codec is
`kpy/wire/<name>.py`, its handler the function `<name>` in `kpy/api/<name>.py`. Both are imported when the API is
first asked for, which keeps start-up short. Ranges are those of an Apache Kafka 3.9.1 broker in ZooKeeper mode, or
reach higher; they never start later or end earlier, because clients choose behaviour by them. What is not in the
table is not advertised. CONTROL_APIS are what a controller and other brokers say, and nobody else: they are served to
the inter-broker listener of a broker that is a member of a cluster, and not advertised, since brokers do not ask.
"""

import importlib
import logging
import struct
from collections.abc import Callable, Coroutine
from typing import Any, cast

import trio

from kpy import regular_expressions
from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import WireError
from kpy.pending import Pending
from kpy.wire.primitives import EncodedMessage, Message, skip_tags

log = logging.getLogger("kpy.api")

APIS: tuple[tuple[int, str, int, int], ...] = (
    (0, "produce", 0, 13),
    (1, "fetch", 0, 18),
    (2, "list_offsets", 0, 10),
    (3, "metadata", 0, 13),
    (8, "offset_commit", 0, 10),
    (9, "offset_fetch", 0, 10),
    (10, "find_coordinator", 0, 6),
    (11, "join_group", 0, 9),
    (12, "heartbeat", 0, 4),
    (13, "leave_group", 0, 5),
    (14, "sync_group", 0, 5),
    (15, "describe_groups", 0, 6),
    (16, "list_groups", 0, 5),
    (18, "api_versions", 0, 4),
    (19, "create_topics", 0, 7),
    (20, "delete_topics", 0, 6),
    (21, "delete_records", 0, 2),
    (22, "init_producer_id", 0, 5),
    (23, "offset_for_leader_epoch", 0, 4),
    (24, "add_partitions_to_txn", 0, 5),
    (25, "add_offsets_to_txn", 0, 4),
    (26, "end_txn", 0, 5),
    (27, "write_txn_markers", 0, 2),
    (28, "txn_offset_commit", 0, 5),
    (32, "describe_configs", 0, 4),
    (33, "alter_configs", 0, 2),
    (34, "alter_replica_log_dirs", 0, 2),
    (35, "describe_log_dirs", 0, 5),
    (37, "create_partitions", 0, 3),
    (42, "delete_groups", 0, 2),
    (43, "elect_leaders", 0, 2),
    (44, "incremental_alter_configs", 0, 1),
    (45, "alter_partition_reassignments", 0, 0),
    (46, "list_partition_reassignments", 0, 0),
    (47, "offset_delete", 0, 0),
    (60, "describe_cluster", 0, 2),
    (61, "describe_producers", 0, 0),
    (65, "describe_transactions", 0, 0),
    (66, "list_transactions", 0, 2 if regular_expressions.are_available() else 1),
)

CONTROL_APIS: tuple[tuple[int, str, int, int], ...] = (
    (4, "leader_and_isr", 0, 7),
    (5, "stop_replica", 0, 4),
    (6, "update_metadata", 5, 8),
    (7, "controlled_shutdown", 1, 3),
    (56, "alter_partition", 2, 3),
    (67, "allocate_producer_ids", 0, 0),
)

API_VERSIONS = 18

Buffers = list[Any]
Handler = Callable[[Any, Client, Broker], Any]
"""A function of kpy/api: a response, None for no answer, a Pending, or a coroutine that returns any of these."""

Spawn = Callable[..., None]
"""A nursery's start_soon."""

_header = struct.Struct(">hhih")
"""API key, version, correlation id, length of the client id."""
_response_v0 = struct.Struct(">ii").pack
"""Size, correlation id."""
_response_v1 = struct.Struct(">iib").pack
"""Size, correlation id, an empty set of tagged fields."""


class Route:
    """One row of the table with its codec and handler, found on first use."""

    __slots__ = ("flexible_since", "handler", "key", "max_version", "min_version", "name", "readers", "writers")

    def __init__(self, key: int, name: str, min_version: int, max_version: int) -> None:
        self.key = key
        self.name = name
        self.min_version = min_version
        self.max_version = max_version
        self.flexible_since = max_version + 1
        self.readers: tuple[Any, ...] = ()
        self.writers: tuple[Any, ...] = ()
        self.handler: Handler | None = None

    def load(self) -> Handler:
        codec = importlib.import_module(f"kpy.wire.{self.name}")
        self.readers = codec.REQUEST_READERS
        self.writers = codec.RESPONSE_WRITERS
        if codec.FLEXIBLE_SINCE is not None:
            self.flexible_since = codec.FLEXIBLE_SINCE
        handler: Handler = getattr(importlib.import_module(f"kpy.api.{self.name}"), self.name)
        self.handler = handler
        return handler

    def encode(self, response: Any, version: int, correlation_id: int) -> Buffers:
        """The whole response frame. ApiVersions keeps the oldest header, so that any client can read its answer."""
        out: Buffers = []
        if type(response) is EncodedMessage:
            out.append(response.body)
        else:
            self.writers[version](response, out)
        size = 4
        for item in out:
            size += len(item)
        if version >= self.flexible_since and self.key != API_VERSIONS:
            head = _response_v1(size + 1, correlation_id, 0)
        else:
            head = _response_v0(size, correlation_id)
        if len(out) == 1:
            return [head + out[0]]
        out.insert(0, head)
        return out


ROUTES: dict[int, Route] = {row[0]: Route(*row) for row in APIS}
CONTROL_ROUTES: dict[int, Route] = {row[0]: Route(*row) for row in CONTROL_APIS}


class Dispatcher:
    """Answers the requests of one connection; this is the connection's `Dispatch`."""

    __slots__ = ("_broker", "_client", "_client_id_bytes", "_spawn")

    def __init__(self, client: Client, broker: Broker, spawn: Spawn) -> None:
        self._client = client
        self._broker = broker
        self._spawn = spawn
        self._client_id_bytes = b""

    def __call__(self, buf: memoryview, start: int, end: int) -> "Buffers | Pending[Buffers | None] | None":
        if end - start < _header.size:
            raise WireError(f"request of {end - start} bytes is too short for a header")
        key, version, correlation_id, client_id_size = _header.unpack_from(buf, start)
        position = start + _header.size
        route = ROUTES.get(key) or self._control_route(key)
        if not route.min_version <= version <= route.max_version:
            if key == API_VERSIONS:
                return self._unsupported_api_versions(route, correlation_id)
            raise WireError(
                f"{route.name} version {version} is not served, only {route.min_version} to {route.max_version}"
            )
        handler = route.handler or route.load()
        if client_id_size > 0:
            after = position + client_id_size
            if after > end:
                raise WireError(f"client id of {client_id_size} bytes in a request of {end - start}")
            client_id = bytes(buf[position:after])
            position = after
            if client_id != self._client_id_bytes:
                self._remember_client_id(client_id)
        elif self._client_id_bytes:
            self._remember_client_id(b"")
        if version >= route.flexible_since:
            position = _after_tags(buf, position, end)
        request = route.readers[version](buf, position, end)[0]
        client = self._client
        client.version = version
        answer = handler(request, client, self._broker)
        if isinstance(answer, Message):
            return route.encode(answer, version, correlation_id)
        if answer is None:
            return None
        if isinstance(answer, Pending):
            return _encoded_later(cast("Pending[Any]", answer), route, version, correlation_id)
        return self._run_later(answer, route, version, correlation_id)

    def _control_route(self, key: int) -> Route:
        route = CONTROL_ROUTES.get(key)
        broker = self._broker
        if route is None or broker.membership is None or self._client.listener != broker.config.inter_broker_listener:
            raise WireError(f"API key {key} is not served")
        return route

    def _remember_client_id(self, client_id: bytes) -> None:
        try:
            self._client.client_id = client_id.decode()
        except UnicodeDecodeError as error:
            raise WireError(f"client id is not UTF-8: {error}") from None
        self._client_id_bytes = client_id

    def _unsupported_api_versions(self, route: Route, correlation_id: int) -> Buffers:
        """Any unknown version is answered in version 0, with an error, without reading the request (KIP-511)."""
        from kpy.api.api_versions import unsupported_version

        route.load()
        return route.encode(unsupported_version(), 0, correlation_id)

    def _run_later(
        self, answer: Coroutine[Any, Any, Any], route: Route, version: int, correlation_id: int
    ) -> "Pending[Buffers | None]":
        scope = trio.CancelScope()
        encoded: Pending[Buffers | None] = Pending(scope.cancel)

        def complete(response: Any) -> None:
            if isinstance(response, Pending):
                encoded.on_abandon = response.abandon
                cast("Pending[Any]", response).deliver_to(complete)
            else:
                encoded.complete(None if response is None else route.encode(response, version, correlation_id))

        self._spawn(_run, answer, scope, complete)
        return encoded


def _encoded_later(
    answer: "Pending[Any]", route: Route, version: int, correlation_id: int
) -> "Pending[Buffers | None]":
    return answer.convert(lambda response: route.encode(response, version, correlation_id))


def _after_tags(buf: memoryview, position: int, end: int) -> int:
    """Passes over the header's tagged fields, which are almost always none."""
    if position >= end:
        raise WireError("the request ends in its header")
    count = buf[position]
    return skip_tags(buf, position + 1, end, count) if count else position + 1


async def _run(answer: Coroutine[Any, Any, Any], scope: trio.CancelScope, complete: Callable[[Any], None]) -> None:
    """Carries a handler that waits to its end. A fault completes with None, which closes the connection."""
    response = None
    with scope:
        try:
            response = await answer
        except Exception:  # A fault in one request's handler must not take the other clients down.
            log.exception("closing a connection: its request met a fault in kpy")
    if not scope.cancelled_caught:
        complete(response)
