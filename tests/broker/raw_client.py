"""A broker in this process and a client that says exactly what a test wants, byte by byte if need be."""

import importlib
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from kpy.config import BrokerConfig
from kpy.errors import ErrorCode
from kpy.records.batch import NewRecord, build_batch
from kpy.replica.membership import Membership
from kpy.server import now_ms, serve
from kpy.storage.fs import Fs
from kpy.wire.apis import APIS
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

TEST_SECONDS = 120
"""A test that takes longer hangs."""

CLIENT_ID = b"raw-client"
API_VERSIONS = 18


class RawClient:
    """One connection to the broker."""

    def __init__(self, stream: Any) -> None:
        """`stream` is trio's, of TCP or of TLS."""
        self.stream = stream
        self._received = b""

    async def __aenter__(self) -> "RawClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive_frame(self) -> bytes | None:
        """The next response without its size, or None if the broker closes the connection."""
        while True:
            if len(self._received) >= 4:
                (size,) = struct.unpack_from(">i", self._received)
                if len(self._received) >= 4 + size:
                    frame, self._received = self._received[4 : 4 + size], self._received[4 + size :]
                    return frame
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                assert not self._received, "the broker closed in the middle of a response"
                return None
            self._received += data

    async def ask(self, key: int, request: Any, version: int, correlation_id: int = 7) -> Any:
        """Sends a request and decodes the response."""
        await self.send(frame(key, request, version, correlation_id))
        response = await self.receive_frame()
        assert response is not None, "the broker closed the connection"
        return decode_response(key, version, response, correlation_id)

    async def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        topic = CreatableTopic(name, partitions, 1, [])
        topic.configs = [CreatableTopicConfig(key.replace("_", "."), value) for key, value in configs.items()]
        response = await self.ask(19, CreateTopicsRequest([topic], 1000), 5)
        assert response.topics[0].error_code == 0, response

    async def produce(self, topic: str, records: bytes | None, acks: int = 1, version: int = 9) -> Any:
        """The answer for partition 0 of `topic`."""
        response = await self.ask(0, produce_request(topic, records, acks), version)
        return response.responses[0].partition_responses[0]

    async def fetch(self, topic: str, offset: int, max_wait_ms: int = 0, version: int = 12) -> Any:
        """The answer for partition 0 of `topic`."""
        position = FetchPartition(0, fetch_offset=offset, partition_max_bytes=1 << 20)
        request = FetchRequest(
            max_wait_ms=max_wait_ms, min_bytes=1, max_bytes=1 << 20, topics=[FetchTopic(topic, partitions=[position])]
        )
        response = await self.ask(1, request, version)
        return response.responses[0].partitions[0]


def produce_request(topic: str, records: bytes | None, acks: int = 1) -> ProduceRequest:
    data = PartitionProduceData(0, None if records is None else memoryview(records))
    return ProduceRequest(None, acks, 1000, [TopicProduceData(topic, partition_data=[data])])


def batch(*values: bytes, **options: Any) -> bytes:
    """A record batch with these values, of now: a producer of old batches would be expired at the next start."""
    return build_batch([NewRecord(now_ms(), None, value) for value in values], **options)


def frame(key: int, request: Any, version: int, correlation_id: int = 7) -> bytes:
    """A whole request with size and header."""
    body = b"".join(codec_of(key).encode_request(request, version))
    return sized(header(key, version, correlation_id) + body)


def header(key: int, version: int, correlation_id: int = 7) -> bytes:
    flexible_since = APIS[key].flexible_since if key in APIS else None
    tags = b"\0" if flexible_since is not None and version >= flexible_since else b""
    return struct.pack(">hhih", key, version, correlation_id, len(CLIENT_ID)) + CLIENT_ID + tags


def sized(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def decode_response(key: int, version: int, response: bytes, correlation_id: int) -> Any:
    (answered,) = struct.unpack_from(">i", response)
    assert answered == correlation_id
    flexible_since = APIS[key].flexible_since
    has_tags = flexible_since is not None and version >= flexible_since and key != API_VERSIONS
    assert not has_tags or response[4] == 0
    return codec_of(key).decode_response(memoryview(response), version, 5 if has_tags else 4)


def codec_of(key: int) -> Any:
    return importlib.import_module(f"kpy.wire.{APIS[key].module}")


Connect = Callable[[], Awaitable[RawClient]]


def run_with_broker(
    data_dir: Path,
    test: Callable[[Connect], Awaitable[None]],
    settings: Mapping[str, str] | None = None,
    fs: Fs | None = None,
    membership: Membership | None = None,
) -> None:
    """Runs `test` against a broker of its own; `test` is given what opens a connection.

    With a `membership` the test is the controller.
    """

    async def main() -> None:
        config = BrokerConfig.of(
            {"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(data_dir), **(settings or {})}
        )
        ready = trio.Event()
        ports: list[int] = []

        def started(listeners: list[tuple[str, str, int]]) -> None:
            ports.append(listeners[0][2])
            ready.set()

        async def connect() -> RawClient:
            return RawClient(await trio.open_tcp_stream("127.0.0.1", ports[0]))

        with trio.fail_after(TEST_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: serve(config, started=started, fs=fs, membership=membership))
                await ready.wait()
                await test(connect)
                nursery.cancel_scope.cancel()

    trio.run(main)


def error_name(code: int) -> str:
    return ErrorCode(code).name
