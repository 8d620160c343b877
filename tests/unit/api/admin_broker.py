"""A broker for metadata and administration handlers: a real cluster in memory, and replicas that only listen."""

import random
from collections.abc import Coroutine, Mapping
from types import ModuleType
from typing import Any, TypeVar, cast

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.registry import API_VERSIONS, ROUTES
from kpy.config import BrokerConfig
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import MetadataImage
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest

CLUSTER_ID = "VUJmE3lXTTqs0g9LRGRJbQ"
LISTENER = "PLAINTEXT"
CORRELATION_ID = 7

T = TypeVar("T")


class FakeReplicas:
    """Stands in for the replica manager: it keeps the images that it was told to apply."""

    def __init__(self) -> None:
        self.applied: list[MetadataImage] = []

    def apply(self, image: MetadataImage) -> None:
        self.applied.append(image)


def make_broker(**settings: str) -> Broker:
    """Broker 1 on listener PLAINTEXT at localhost:9092. `settings` are broker configs, underscores for dots."""
    texts = {"broker.id": "1"} | {key.replace("_", "."): text for key, text in settings.items()}
    cluster = open_cluster(EmbeddedStore(None))
    broker = Broker(
        config=BrokerConfig.of(texts),
        cluster=cluster,
        replicas=cast("Any", FakeReplicas()),
        groups=cast("Any", None),
        transactions=cast("Any", None),
        fetch_sessions=cast("Any", None),
        now_ms=lambda: 0,
        rng=random.Random(2),
    )

    def on_change(image: MetadataImage) -> None:
        broker.replicas.apply(image)
        cluster_wide, own = image.broker_configs.get("", {}), image.broker_configs.get("1", {})
        broker.config = broker.config.with_overrides(cluster_wide, own)

    cluster.on_change = on_change
    register(cluster)
    return broker


def open_cluster(store: EmbeddedStore) -> Cluster:
    return run(Cluster.open(store, broker_id=1, rng=random.Random(1), now_ms=lambda: 0, cluster_id=CLUSTER_ID))


def register(cluster: Cluster) -> None:
    run(cluster.register({LISTENER: ("localhost", 9092)}, {LISTENER: "PLAINTEXT"}))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine."""

    async def awaited() -> T:
        return await coroutine

    return trio.run(awaited)


def call(broker: Broker, codec: ModuleType, request: Any, version: int, listener: str = LISTENER) -> Any:
    """Sends a request through its handler: both it and the response are encoded and decoded at `version`."""
    route = ROUTES[codec.API_KEY]
    client = Client("127.0.0.1", listener)
    client.version = version
    received = codec.decode_request(memoryview(b"".join(codec.encode_request(request, version))), version)
    response = route.load()(received, client, broker)
    if isinstance(response, Coroutine):
        response = run(cast("Coroutine[Any, Any, Any]", response))
    frame = b"".join(route.encode(response, version, CORRELATION_ID))
    head_bytes = 9 if version >= route.flexible_since and route.key != API_VERSIONS else 8
    return codec.decode_response(memoryview(frame)[head_bytes:], version, exact=True)


def create(broker: Broker, name: str, partitions: int = 1, configs: Mapping[str, str] = {}) -> bytes:
    """Creates a topic and returns its id."""
    from kpy.wire import create_topics

    topic = CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=1,
        configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs.items()],
    )
    (result,) = call(broker, create_topics, CreateTopicsRequest(topics=[topic]), 7).topics
    assert result.error_code == 0, result.error_message
    return result.topic_id


def changes(broker: Broker) -> int:
    """How many images the replicas have been told to apply."""
    return len(cast("FakeReplicas", cast("Any", broker.replicas)).applied)
