"""A plain blocking connection to a broker, for what surrounds a measurement: topics, sample answers, error positions.

Messages are encoded by kpy's own codec (kpy/wire); each API is given as its module there.
"""

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterable
from types import ModuleType, TracebackType
from typing import Any, Self

from bench.programs import WorkFailedError
from kpy.wire import create_topics, delete_topics, list_offsets
from kpy.wire import incremental_alter_configs as alter_configs

TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.005
CORRELATION_ID = 7
CLIENT_ID = b"bench"
PORTS = (20_000, 32_000)
API_VERSIONS_REQUEST = struct.pack(">ihhih", 10, 18, 0, CORRELATION_ID, 0)

# Versions that kpy and Apache Kafka 3.9 both serve, and that name topics by name.
CREATE_TOPICS_VERSION = 5
DELETE_TOPICS_VERSION = 5
LIST_OFFSETS_VERSION = 7
FIND_COORDINATOR_VERSION = 3
ALTER_CONFIGS_VERSION = 1
TOPIC_RESOURCE, SET = 2, 0
CONSUMER = -1
LATEST = -1


def frame(api: ModuleType, request: Any, version: int) -> bytes:
    """A whole request, size prefix included. Only for APIs with flexible versions, of which `version` is one."""
    header = struct.pack(">hhih", api.API_KEY, version, CORRELATION_ID, len(CLIENT_ID)) + CLIENT_ID + b"\0"
    body = b"".join(api.encode_request(request, version))
    return struct.pack(">i", len(header) + len(body)) + header + body


class Link:
    """A connection that asks one thing at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def call(self, api: ModuleType, request: Any, version: int) -> Any:
        """The decoded answer. Raises WorkFailedError when the broker hangs up, TimeoutError when it is silent."""
        return api.decode_response(memoryview(self.exchange(frame(api, request, version)))[5:], version)

    def exchange(self, request_frame: bytes) -> bytes:
        """The answer to a ready-made request, without its size prefix."""
        self._socket.sendall(request_frame)
        size = self._reader.read(4)
        answer = self._reader.read(int.from_bytes(size)) if len(size) == 4 else b""
        if len(answer) < 4:
            raise WorkFailedError("the broker closed the connection of a request")
        return answer

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> None:
        """With one replica. Returns when it can be written to: Apache Kafka answers a little before."""
        topic = create_topics.CreatableTopic(name, partitions, 1)
        topic.configs = [create_topics.CreatableTopicConfig(key.replace("_", "."), configs[key]) for key in configs]
        self.ask_for_topic(topic)
        deadline = time.monotonic() + TIMEOUT_S
        while error := self.end_offsets_error(name, range(partitions)):
            if time.monotonic() > deadline:
                raise WorkFailedError(f"topic {name} cannot be used: error {error}")
            time.sleep(POLL_INTERVAL_S)

    def ask_for_topic(self, topic: create_topics.CreatableTopic) -> None:
        """Returns when the controller, whom this connection has to lead to, has made the topic."""
        request = create_topics.CreateTopicsRequest([topic], int(TIMEOUT_S * 1000))
        (result,) = self.call(create_topics, request, CREATE_TOPICS_VERSION).topics
        if result.error_code:
            raise WorkFailedError(f"topic {topic.name} was not created: {result.error_code} {result.error_message}")

    def delete_topic(self, name: str) -> None:
        request = delete_topics.DeleteTopicsRequest(topic_names=[name], timeout_ms=int(TIMEOUT_S * 1000))
        (result,) = self.call(delete_topics, request, DELETE_TOPICS_VERSION).responses
        if result.error_code:
            raise WorkFailedError(f"topic {name} was not deleted: error {result.error_code}")

    def end_offsets_error(self, name: str, partitions: Iterable[int]) -> int:
        """What a leader answers that does not lead yet, when the ends of all logs are asked for; 0 if all do."""
        return next((partition.error_code for partition in self._ends(name, partitions) if partition.error_code), 0)

    def end_offset(self, name: str) -> int:
        """Of partition 0."""
        (partition,) = self._ends(name, (0,))
        if partition.error_code:
            raise WorkFailedError(f"the end of topic {name} is answered with error {partition.error_code}")
        return partition.offset

    def _ends(self, name: str, partitions: Iterable[int]) -> list[list_offsets.ListOffsetsPartitionResponse]:
        wanted = [list_offsets.ListOffsetsPartition(index, timestamp=LATEST) for index in partitions]
        request = list_offsets.ListOffsetsRequest(CONSUMER, 0, [list_offsets.ListOffsetsTopic(name, wanted)])
        (topic,) = self.call(list_offsets, request, LIST_OFFSETS_VERSION).topics
        return topic.partitions

    def alter_topic(self, name: str, **configs: str) -> None:
        """Sets configs of a topic, whose dots are underscores here."""
        altered = [alter_configs.AlterableConfig(key.replace("_", "."), SET, configs[key]) for key in configs]
        resource = alter_configs.AlterConfigsResource(TOPIC_RESOURCE, name, altered)
        request = alter_configs.IncrementalAlterConfigsRequest([resource])
        (result,) = self.call(alter_configs, request, ALTER_CONFIGS_VERSION).responses
        if result.error_code:
            raise WorkFailedError(f"topic {name} was not altered: error {result.error_code} {result.error_message}")


def answers(port: int) -> bool:
    """Whether something on the port answers ApiVersions without an error."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(API_VERSIONS_REQUEST)
            with connection.makefile("rb") as reader:
                answer = reader.read(10)
    except ConnectionError:
        return False
    return len(answer) == 10 and struct.unpack(">ih", answer[4:10]) == (CORRELATION_ID, 0)


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that nobody listened on a moment ago.

    They lie below those that the kernel gives to clients: whoever knocks often on such a port before the broker
    listens would one day get it as its own port, be connected to itself, and keep the broker from binding it.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as probes:
        while len(ports) < count:
            port = random.randrange(*PORTS)
            probe = probes.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports
