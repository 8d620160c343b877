"""A broker with real logs, but without sockets, for the handlers that work on logs."""

import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.registry import ROUTES
from kpy.config import BrokerConfig
from kpy.records.batch import NewRecord, build_batch
from kpy.records.validate import validate_produced
from kpy.server import opened
from kpy.storage.log import Log
from tests.unit.api.admin_broker import create, run

NOW_MS = 1_700_000_000_000


@contextmanager
def open_broker(
    *data_dirs: Path, settings: Mapping[str, str] = {}, listener: str = "PLAINTEXT"
) -> Generator[Broker, None, None]:
    """Broker 1, whose clock stands still. `settings` are broker configs by their names."""
    texts = {"log.dirs": ",".join(map(str, data_dirs)), **settings}
    # The first step is made outside of trio, which closes every generator that it has seen begin when a run is over.
    life = opened(BrokerConfig.of(texts), lambda: NOW_MS).gen
    broker = run(life.__anext__()).broker
    try:
        run(broker.cluster.register({listener: ("localhost", 9092)}, {listener: listener}))
        yield broker
    finally:
        with suppress(StopAsyncIteration):
            run(life.__anext__())


def ask(broker: Broker, codec: ModuleType, request: Any, version: int) -> Any:
    """Sends a request through its handler, waiting where it waits, and through the codec both ways."""

    async def main() -> Any:
        client = Client("127.0.0.1", "PLAINTEXT")
        client.version = version
        received = codec.decode_request(memoryview(b"".join(codec.encode_request(request, version))), version)
        response = ROUTES[codec.API_KEY].load()(received, client, broker)
        if inspect.iscoroutine(response):
            response = await response
        return codec.decode_response(memoryview(b"".join(codec.encode_response(response, version))), version)

    return trio.run(main)


def create_topic(broker: Broker, name: str, partitions: int = 1, **configs: str) -> None:
    create(broker, name, partitions, {key.replace("_", "."): value for key, value in configs.items()})


def append(broker: Broker, topic: str, *values: bytes, partition: int = 0) -> Log:
    """One batch of records with these values; the log they are in now."""
    led = broker.replicas.partition(topic, partition)
    data = build_batch([NewRecord(NOW_MS, b"key", value) for value in values])
    led.append(validate_produced(memoryview(data), led.log.config.produce_rules, 9, NOW_MS), -1, NOW_MS)
    return led.log
