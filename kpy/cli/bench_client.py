"""The client of `kpy bench`: finds the cluster's brokers, makes a topic and deletes it, and sends ready-made requests.

What surrounds a measurement is asked through `Cluster`, one question at a time. What is measured goes through a `Wire`:
a socket on which frames are sent as they are and answers only looked at as far as a test of them needs, since the
client and not the broker would be measured otherwise.
"""

import importlib
import os
import socket
import struct
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, cast

import trio

from kpy.errors import ErrorCode, WireError
from kpy.peers import PeerChannel, PeerError
from kpy.wire.api_versions import ApiVersionsRequest
from kpy.wire.apis import APIS
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.delete_topics import DeleteTopicsRequest
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic
from kpy.wire.primitives import Message

CLIENT_ID: Final = "kpy-bench"
TIMEOUT_MS: Final = 10_000
LEADER_TIMEOUT_S: Final = 30.0
LEADER_POLL_S: Final = 0.05
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
RECEIVE_BYTES: Final = 256 * 1024
CORRELATION_ID: Final = 7
PRODUCE, FETCH, METADATA, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS = 0, 1, 3, 18, 19, 20

# The newest versions that name topics by name, and the oldest that say what is asked here: batches of records, a
# Metadata request that creates nothing, a reason for a topic that is not created.
VERSIONS: Final = {PRODUCE: (3, 9), FETCH: (4, 12), METADATA: (4, 12), CREATE_TOPICS: (1, 5), DELETE_TOPICS: (1, 5)}

_head: Final = struct.Struct(">ihhih")
"""Size, API key, version, correlation id, length of the client id."""


class BenchError(Exception):
    """What was asked for cannot be measured, in words for whoever asked."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def refusal(what: str, code: int, message: str | None = None) -> BenchError:
    """What a broker says with an error code, and with words if it has any."""
    name = ErrorCode(code).name if code in set(ErrorCode) else f"error {code}"
    return BenchError(f"{what}: {name}{f' ({message})' if message else ''}")


def choose_versions(served: dict[int, tuple[int, int]]) -> dict[int, int]:
    """The version of each API that both sides know best. Raises BenchError where there is none."""
    chosen: dict[int, int] = {}
    for key, (oldest, newest) in VERSIONS.items():
        least, most = served.get(key, (0, -1))
        chosen[key] = min(newest, most)
        if not max(oldest, least) <= chosen[key]:
            has = f"{least} to {most}" if key in served else "none"
            raise BenchError(
                f"the broker serves versions {has} of {APIS[key].name}; needed is one of {oldest} to {newest}"
            )
    return chosen


class Cluster:
    """The brokers behind one address."""

    def __init__(self, bootstrap: Address) -> None:
        self._bootstrap = bootstrap
        self._channels: dict[Address, PeerChannel] = {}
        self.versions: dict[int, int] = {}
        self.brokers: dict[int, Address] = {}
        self.controller_id = -1

    async def connect(self) -> None:
        """Asks what is served, and for the brokers. Raises BenchError with the reason why this cannot be measured."""
        try:
            (await trio.open_tcp_stream(*self._bootstrap)).socket.close()
        except OSError as error:
            raise BenchError(f"cannot connect to {self._bootstrap}: {_reason(error)}") from error
        answer = await self._ask(self._bootstrap, API_VERSIONS, ApiVersionsRequest(), 0)
        if answer.error_code:
            raise refusal("the broker does not tell which APIs it serves", answer.error_code)
        self.versions = choose_versions(
            {each.api_key: (each.min_version, each.max_version) for each in answer.api_keys}
        )
        await self._find(None)

    async def create_topic(self, replication_factor: int) -> str:
        """A new topic of one partition, under a name that nobody else uses."""
        name = f"kpy-bench-{uuid.uuid4().hex[:12]}"
        request = CreateTopicsRequest([CreatableTopic(name, 1, replication_factor)], TIMEOUT_MS)
        (result,) = (await self.ask(self.controller(), CREATE_TOPICS, request)).topics
        if result.error_code:
            message = result.error_message if self.versions[CREATE_TOPICS] >= 1 else None
            raise refusal("no topic may be created (--topic takes one that exists)", result.error_code, message)
        return name

    async def delete_topic(self, name: str) -> None:
        request = DeleteTopicsRequest(topic_names=[name], timeout_ms=TIMEOUT_MS)
        (result,) = (await self.ask(self.controller(), DELETE_TOPICS, request)).responses
        if result.error_code:
            raise refusal(f"topic {name} is left behind, since it may not be deleted", result.error_code)

    async def leader(self, topic: str, *, is_new: bool) -> Address:
        """Who leads partition 0. A topic that is new is waited for; others exist or not, and are never created."""
        deadline = trio.current_time() + LEADER_TIMEOUT_S
        while True:
            found = await self._find(topic)
            partition = next((each for each in found.partitions if each.partition_index == 0), None)
            code = found.error_code or (ErrorCode.LEADER_NOT_AVAILABLE if partition is None else partition.error_code)
            if not code and partition is not None and partition.leader_id in self.brokers:
                return self.brokers[partition.leader_id]
            if not is_new or trio.current_time() > deadline:
                raise refusal(f"topic {topic} cannot be used", code or ErrorCode.LEADER_NOT_AVAILABLE)
            await trio.sleep(LEADER_POLL_S)

    def controller(self) -> Address:
        """Who creates topics: the controller, or whoever passes it on where a controller is no broker."""
        return self.brokers.get(self.controller_id, self._bootstrap)

    async def ask(self, broker: Address, key: int, request: Message) -> Any:
        return await self._ask(broker, key, request, self.versions[key])

    def frame(self, key: int, request: Message) -> bytes:
        """A whole request, size prefix and header included."""
        version = self.versions[key]
        body = b"".join(codec_of(key).encode_request(request, version))
        client_id = CLIENT_ID.encode() + (b"\0" if is_flexible(key, version) else b"")
        size = _head.size - 4 + len(client_id) + len(body)
        return _head.pack(size, key, version, CORRELATION_ID, len(CLIENT_ID)) + client_id + body

    def decode(self, key: int, answer: memoryview) -> Any:
        """An answer without its size prefix, but with its header."""
        version = self.versions[key]
        return codec_of(key).decode_response(answer, version, response_header_size(key, version))

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    async def _find(self, topic: str | None) -> Any:
        """Brokers and controller as of now, and the topic, if one is asked for."""
        request = MetadataRequest([] if topic is None else [MetadataRequestTopic(name=topic)], False)
        answer = await self.ask(self._bootstrap, METADATA, request)
        self.brokers = {each.node_id: Address(each.host, each.port) for each in answer.brokers}
        self.controller_id = answer.controller_id
        return answer.topics[0] if topic is not None else None

    async def _ask(self, broker: Address, key: int, request: Message, version: int) -> Any:
        channel = self._channels.get(broker)
        if channel is None:
            channel = PeerChannel(partial(trio.open_tcp_stream, *broker), CLIENT_ID, TIMEOUT_MS)
            self._channels[broker] = channel
        try:
            return await channel.ask(key, request, version)
        except PeerError as error:
            hint = "; a listener with TLS or SASL is not spoken to" if "closed" in str(error) else ""
            raise BenchError(f"{broker} does not answer {APIS[key].name}: {error}{hint}") from error


def _reason(error: BaseException) -> str:
    """Why an address cannot be connected to: trio tries each that a name has, and groups what it met."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        if isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        else:
            error = error.__cause__ or error
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error)


def codec_of(key: int) -> Any:
    return importlib.import_module(f"kpy.wire.{APIS[key].module}")


def is_flexible(key: int, version: int) -> bool:
    flexible_since = APIS[key].flexible_since
    return flexible_since is not None and version >= flexible_since


def response_header_size(key: int, version: int) -> int:
    """In bytes. ApiVersions alone is answered without tagged fields in it, so that old clients can read the answer."""
    return 5 if is_flexible(key, version) and key != API_VERSIONS else 4


def error_position(key: int, version: int, answer: bytes, holder_of_error: Callable[[Any], Any]) -> int:
    """Where the error code lies in answers like this one, which has no size prefix. Raises BenchError for an error.

    `holder_of_error` finds, in a decoded answer, what holds the code.
    """
    codec = codec_of(key)
    decoded = codec.decode_response(memoryview(answer), version, response_header_size(key, version))
    holder = holder_of_error(decoded)
    if holder.error_code:
        raise refusal("refused", holder.error_code)
    without = b"".join(codec.encode_response(decoded, version))
    holder.error_code = -1
    with_error = b"".join(codec.encode_response(decoded, version))
    first_difference = next(at for at, (one, other) in enumerate(zip(without, with_error, strict=True)) if one != other)
    return len(answer) - len(without) + first_difference


class AnswerCounter:
    """Counts the answers in a stream of bytes and looks at the error code of each. Raises BenchError."""

    def __init__(self, error_position: int) -> None:
        self._error_position = 4 + error_position
        self._kept = b""

    def feed(self, data: bytes) -> int:
        """How many answers are complete now that these bytes have come."""
        if self._kept:
            data = self._kept + data
        at, count, end, error_at = 0, 0, len(data), self._error_position
        while end - at >= 4:
            size = 4 + int.from_bytes(data[at : at + 4])
            if not error_at + 2 <= size <= MAX_ANSWER_BYTES:
                raise BenchError(f"an answer of {size - 4} bytes is not what was asked for")
            if end - at < size:
                break
            if data[at + error_at : at + error_at + 2] != b"\0\0":
                raise refusal("refused", int.from_bytes(data[at + error_at : at + error_at + 2], signed=True))
            at += size
            count += 1
        self._kept = data[at:]
        return count


class Wire:
    """A connection for ready-made frames, with no stream object between. Raises BenchError when it breaks."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(RECEIVE_BYTES)

    @classmethod
    async def open(cls, broker: Address) -> "Wire":
        try:
            stream = await trio.open_tcp_stream(*broker)
        except OSError as error:
            what = f"the brokers say that one is reached at {broker}, which it is not: {_reason(error)}"
            raise BenchError(what) from error
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        return cls(sock)

    def close(self) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise BenchError(f"the connection broke: {error.strerror}") from error

    async def receive(self) -> bytes:
        """What there is, once there is something."""
        await trio.lowlevel.wait_readable(self._socket)
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise BenchError(f"the connection broke: {error.strerror}") from error
        if not data:
            raise BenchError("the broker closed the connection")
        return data

    async def exchange(self, request: bytes) -> memoryview:
        """The answer to a request, without its size prefix; good until the next call."""
        await self.send(request)
        await self._fill(4)
        size = int.from_bytes(self._buffer[:4])
        if not 4 <= size <= MAX_ANSWER_BYTES:
            raise WireError(f"an answer of {size} bytes")
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        await self._fill(size)
        return memoryview(self._buffer)[:size]

    async def _fill(self, size: int) -> None:
        view = memoryview(self._buffer)[:size]
        while view:
            try:
                count = self._socket.recv_into(view)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError as error:
                raise BenchError(f"the connection broke: {error.strerror}") from error
            if count == 0:
                raise BenchError("the broker closed the connection")
            view = view[count:]
