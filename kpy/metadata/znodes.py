"""Where Apache Kafka 3.9 keeps what in ZooKeeper, and how it writes it: paths and JSON, both ways (its ZkData.scala).

The embedded store holds the same tree, so that one set of rules serves both, and a single node's metadata can be read
with what one knows of Kafka. Decoders raise ValueError for data that is not what the path should hold. Unknown JSON
keys are ignored.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from kpy import ids

CLUSTER_ID = "/cluster/id"
BROKER_IDS = "/brokers/ids"
TOPICS = "/brokers/topics"
TOPIC_CONFIGS = "/config/topics"
BROKER_CONFIGS = "/config/brokers"
PRODUCER_ID_BLOCK = "/latest_producer_id_block"

PERSISTENT_PATHS = (
    "/consumers",
    BROKER_IDS,
    TOPICS,
    "/brokers/seqid",
    "/config/changes",
    TOPIC_CONFIGS,
    "/config/clients",
    "/config/users",
    BROKER_CONFIGS,
    "/config/ips",
    "/admin/delete_topics",
    "/isr_change_notification",
    PRODUCER_ID_BLOCK,
    "/log_dir_event_notification",
    "/cluster",
)
"""What a first start creates, with null data: Apache Kafka takes empty data for a broken producer id block."""

DEFAULT_ENTITY = "<default>"
"""The name of the node with the cluster-wide default configs."""


class TopicNode(NamedTuple):
    topic_id: bytes
    """ids.ZERO_ID where a tool older than Kafka 2.8 made the topic."""
    replicas: dict[int, tuple[int, ...]]
    """Broker ids by partition."""


class PartitionState(NamedTuple):
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    controller_epoch: int


class BrokerRegistration(NamedTuple):
    endpoints: dict[str, tuple[str, int]]
    security_protocols: dict[str, str]
    rack: str | None


class ProducerIdBlock(NamedTuple):
    broker_id: int
    first: int
    last: int


def broker_path(broker_id: int) -> str:
    return f"{BROKER_IDS}/{broker_id}"


def topic_path(topic: str) -> str:
    return f"{TOPICS}/{topic}"


def partitions_path(topic: str) -> str:
    return f"{TOPICS}/{topic}/partitions"


def partition_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}"


def partition_state_path(topic: str, partition: int) -> str:
    return f"{TOPICS}/{topic}/partitions/{partition}/state"


def topic_config_path(topic: str) -> str:
    return f"{TOPIC_CONFIGS}/{topic}"


def broker_config_path(broker: str) -> str:
    """Of a broker id as text, or "" for the cluster-wide default."""
    return f"{BROKER_CONFIGS}/{broker or DEFAULT_ENTITY}"


def encode_cluster_id(cluster_id: str) -> bytes:
    return _encode({"version": "1", "id": cluster_id})  # Kafka writes this one version as a string.


def decode_cluster_id(data: bytes | None) -> str:
    return _text(_decode(data), "id")


def encode_topic(topic: TopicNode) -> bytes:
    return _encode(
        {
            "version": 3,
            "topic_id": ids.to_text(topic.topic_id),
            "partitions": {str(partition): list(replicas) for partition, replicas in sorted(topic.replicas.items())},
            "adding_replicas": {},
            "removing_replicas": {},
        }
    )


def decode_topic(data: bytes | None) -> TopicNode:
    document = _decode(data)
    topic_id = ids.from_text(_text(document, "topic_id")) if "topic_id" in document else ids.ZERO_ID
    partitions = document.get("partitions")
    if not isinstance(partitions, dict):
        raise ValueError("no partitions")
    replicas = {
        int(partition): _broker_ids(brokers) for partition, brokers in cast("dict[str, object]", partitions).items()
    }
    if sorted(replicas) != list(range(len(replicas))):
        raise ValueError("gaps in the partitions")
    return TopicNode(topic_id, replicas)


def encode_partition_state(state: PartitionState) -> bytes:
    return _encode(
        {
            "version": 1,
            "leader": state.leader,
            "leader_epoch": state.leader_epoch,
            "controller_epoch": state.controller_epoch,
            "isr": list(state.isr),
        }
    )


def decode_partition_state(data: bytes | None) -> PartitionState:
    document = _decode(data)
    return PartitionState(
        _integer(document, "leader"),
        _integer(document, "leader_epoch"),
        _broker_ids(document.get("isr")),
        _integer(document, "controller_epoch"),
    )


def encode_config(configs: Mapping[str, str]) -> bytes:
    return _encode({"version": 1, "config": dict(configs)})


def decode_config(data: bytes | None) -> dict[str, str]:
    config = _decode(data).get("config")
    if not isinstance(config, dict):
        raise ValueError("no config")
    configs = cast("dict[str, object]", config)
    return {name: _text(configs, name) for name in configs}


def encode_broker(broker: BrokerRegistration, now_ms: int) -> bytes:
    # Clients before endpoints existed read host and port: those of the first plaintext listener, or none.
    plaintext = [
        address for name, address in broker.endpoints.items() if broker.security_protocols[name] == "PLAINTEXT"
    ]
    host, port = plaintext[0] if plaintext else (None, -1)
    document: dict[str, object] = {
        "version": 5,
        "host": host,
        "port": port,
        "endpoints": [f"{name}://{_format_address(*address)}" for name, address in broker.endpoints.items()],
        "listener_security_protocol_map": broker.security_protocols,
        # Apache Kafka's controller stops hearing of any broker's arrival while one registration lacks jmx_port.
        "jmx_port": -1,
        "timestamp": str(now_ms),
        "features": {},
    }
    if broker.rack is not None:
        document["rack"] = broker.rack
    return _encode(document)


def decode_broker(data: bytes | None) -> BrokerRegistration:
    document = _decode(data)
    endpoints: dict[str, tuple[str, int]] = {}
    listed = document.get("endpoints")
    if not isinstance(listed, list):
        raise ValueError("no endpoints")
    for endpoint in cast("list[object]", listed):
        name, separator, address = str(endpoint).partition("://")
        host, colon, port = address.rpartition(":")
        if not (separator and colon):
            raise ValueError(f"endpoint {endpoint!r} is not NAME://host:port")
        endpoints[name] = host.removeprefix("[").removesuffix("]"), int(port)
    protocols = document.get("listener_security_protocol_map")
    # Before version 4 a listener's name was its security protocol.
    security_protocols = (
        cast("dict[str, str]", protocols) if isinstance(protocols, dict) else {name: name for name in endpoints}
    )
    rack = document.get("rack")
    return BrokerRegistration(endpoints, security_protocols, None if rack is None else str(rack))


def encode_producer_id_block(block: ProducerIdBlock) -> bytes:
    return _encode(
        {"version": 1, "broker": block.broker_id, "block_start": str(block.first), "block_end": str(block.last)}
    )


def decode_producer_id_block(data: bytes | None) -> ProducerIdBlock:
    document = _decode(data)
    return ProducerIdBlock(
        _integer(document, "broker"), int(_text(document, "block_start")), int(_text(document, "block_end"))
    )


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _decode(data: bytes | None) -> dict[str, object]:
    document: Any = json.loads("null" if data is None else data.decode())
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return cast("dict[str, object]", document)


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    return value


def _integer(document: Mapping[str, object], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int):
        raise ValueError(f"{key} is not an integer")
    return value


def _broker_ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(broker_id, int) for broker_id in cast("list[object]", value)):
        raise ValueError(f"{value!r} is not a list of broker ids")
    return tuple(cast("Sequence[int]", value))


def _format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
