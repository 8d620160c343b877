"""Where Apache Kafka 3.9 keeps what in ZooKeeper, and how it writes it: paths and JSON, both ways (its ZkData.scala).

The embedded store holds the same tree, so that one set of rules serves both, and a single node's metadata can be read
with what one knows of Kafka. Decoders raise ValueError for data that is not what the path should hold, or that says it
is of a newer version: what it means then is not to be guessed. Unknown JSON keys are ignored.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast

from kpy import ids
from kpy.errors import ApiError, ErrorCode
from kpy.wire.primitives import MAX_STRING_BYTES

T = TypeVar("T")

CLUSTER_ID = "/cluster/id"
BROKER_IDS = "/brokers/ids"
TOPICS = "/brokers/topics"
CONTROLLER = "/controller"
CONTROLLER_EPOCH = "/controller_epoch"
FEATURE = "/feature"
DELETE_TOPICS = "/admin/delete_topics"
CONFIG_CHANGES = "/config/changes"
TOPIC_CONFIGS = "/config/topics"
BROKER_CONFIGS = "/config/brokers"
PRODUCER_ID_BLOCK = "/latest_producer_id_block"
LOG_DIR_EVENTS = "/log_dir_event_notification"

REASSIGNMENTS = "/admin/reassign_partitions"
PREFERRED_ELECTIONS = "/admin/preferred_replica_election"
"""What tools with `--zookeeper` ask of the controller. These nodes are there only while something is asked."""

CONSUMERS = "/consumers"
"""Where consumers older than Kafka 0.9 write: zookeeper.set.acl leaves it to everybody (Kafka's ZkData)."""

PERSISTENT_PATHS = (
    CONSUMERS,
    BROKER_IDS,
    TOPICS,
    "/brokers/seqid",
    CONFIG_CHANGES,
    TOPIC_CONFIGS,
    "/config/clients",
    "/config/users",
    BROKER_CONFIGS,
    "/config/ips",
    DELETE_TOPICS,
    "/isr_change_notification",
    PRODUCER_ID_BLOCK,
    LOG_DIR_EVENTS,
    "/cluster",
)
"""What a first start creates, with null data: Apache Kafka takes empty data for a broken producer id block."""

SENSITIVE_PATHS = ("/config/users", BROKER_CONFIGS, "/delegation_token/tokens")
"""Below these are secrets, which zookeeper.set.acl hides from everybody else (Kafka's ZkData)."""

MAX_INT = 2**31 - 1
MAX_PORT = 65_535

DEFAULT_ENTITY = "<default>"
"""The name of the node with the cluster-wide default configs."""


class TopicNode(NamedTuple):
    topic_id: bytes
    """ids.ZERO_ID where a tool older than Kafka 2.8 made the topic."""
    replicas: dict[int, tuple[int, ...]]
    """Broker ids by partition."""
    adding: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    removing: Mapping[int, tuple[int, ...]] = MappingProxyType({})
    """Where a reassignment is under way: those of the replicas that come and go."""


class PartitionState(NamedTuple):
    leader: int
    leader_epoch: int
    isr: tuple[int, ...]
    controller_epoch: int
    leader_recovery_state: int = 0
    """1 while a leader that was elected uncleanly has not yet got its followers in step."""


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


def topic_of(path: str) -> str | None:
    """The topic that a node belongs to: its own, one below it, or that of its configs."""
    for above in (f"{TOPICS}/", f"{TOPIC_CONFIGS}/"):
        if path.startswith(above):
            return path[len(above) :].partition("/")[0]
    return None


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
            "partitions": _by_partition(topic.replicas),
            "adding_replicas": _by_partition(topic.adding),
            "removing_replicas": _by_partition(topic.removing),
        }
    )


def decode_topic(data: bytes | None) -> TopicNode:
    document = _decode(data, newest=3)
    topic_id = ids.from_text(_text(document, "topic_id")) if "topic_id" in document else ids.ZERO_ID
    if "partitions" not in document:
        raise ValueError("no partitions")
    replicas = _replicas(document, "partitions")
    if sorted(replicas) != list(range(len(replicas))):
        raise ValueError("gaps in the partitions")
    if not all(replicas.values()):
        raise ValueError("a partition without replicas")
    return TopicNode(
        topic_id, replicas, _replicas(document, "adding_replicas"), _replicas(document, "removing_replicas")
    )


def encode_partition_state(state: PartitionState) -> bytes:
    document: dict[str, object] = {
        "version": 1,
        "leader": state.leader,
        "leader_epoch": state.leader_epoch,
        "controller_epoch": state.controller_epoch,
        "isr": list(state.isr),
    }
    if state.leader_recovery_state:
        document["leader_recovery_state"] = state.leader_recovery_state
    return _encode(document)


def decode_partition_state(data: bytes | None) -> PartitionState:
    document = _decode(data, newest=1)
    return PartitionState(
        _integer(document, "leader"),
        _integer(document, "leader_epoch"),
        _broker_ids(document.get("isr")),
        _integer(document, "controller_epoch"),
        _integer(document, "leader_recovery_state") if "leader_recovery_state" in document else 0,
    )


def encode_config(configs: Mapping[str, str]) -> bytes:
    return _encode({"version": 1, "config": dict(configs)})


def decode_config(data: bytes | None) -> dict[str, str]:
    config = _decode(data, newest=1).get("config")
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
    document = _decode(data, newest=5)
    endpoints: dict[str, tuple[str, int]] = {}
    listed = document.get("endpoints")
    if not isinstance(listed, list):
        raise ValueError("no endpoints")
    for endpoint in cast("list[object]", listed):
        name, separator, address = str(endpoint).partition("://")
        host, colon, port = address.rpartition(":")
        if not (separator and colon):
            raise ValueError(f"endpoint {endpoint!r} is not NAME://host:port")
        if not 0 <= int(port) <= MAX_PORT:
            raise ValueError(f"endpoint {endpoint!r} has no port that can be")
        endpoints[_sendable(name)] = _sendable(host.removeprefix("[").removesuffix("]")), int(port)
    # Before version 4 a listener's name was its security protocol.
    security_protocols = {name: name for name in endpoints}
    protocols = document.get("listener_security_protocol_map")
    if isinstance(protocols, dict):
        named = cast("dict[str, object]", protocols)
        security_protocols = {name: _text(named, name) for name in named}
    rack = document.get("rack")
    return BrokerRegistration(endpoints, security_protocols, None if rack is None else _sendable(str(rack)))


def encode_controller(broker_id: int, now_ms: int) -> bytes:
    return _encode({"version": 2, "brokerid": broker_id, "timestamp": str(now_ms), "kraftControllerEpoch": -1})


def decode_controller(data: bytes | None) -> int:
    """The broker id. ValueError also where the controller is one of KRaft, which a migration has put in its place."""
    document = _decode(data, newest=2)
    if "kraftControllerEpoch" in document and _integer(document, "kraftControllerEpoch") > 0:
        raise ValueError("the cluster is on its way to KRaft")
    return _integer(document, "brokerid")


def encode_controller_epoch(epoch: int) -> bytes:
    return str(epoch).encode()


def decode_controller_epoch(data: bytes | None) -> int:
    epoch = int((data or b"").decode())
    if not 0 <= epoch < MAX_INT:
        raise ValueError(f"{epoch} is no controller epoch")
    return epoch


def encode_feature() -> bytes:
    """Finalized features: enabled, and none (KIP-584)."""
    return _encode({"version": 2, "status": 1, "features": {}})


def decode_features(data: bytes | None) -> tuple[str, ...]:
    """The names of the features that the cluster's brokers must support; none while features are disabled."""
    document = _decode(data, newest=2)
    features = document.get("features")
    if not isinstance(features, dict):
        raise ValueError("no features")
    return tuple(cast("dict[str, object]", features)) if _integer(document, "status") == 1 else ()


def deletion_path(topic: str) -> str:
    return f"{DELETE_TOPICS}/{topic}"


def encode_reassignments(targets: Mapping[tuple[str, int], Sequence[int]]) -> bytes:
    partitions = [
        {"topic": topic, "partition": index, "replicas": list(replicas)} for (topic, index), replicas in targets.items()
    ]
    return _encode({"version": 1, "partitions": partitions})


def decode_reassignments(data: bytes | None) -> dict[tuple[str, int], tuple[int, ...]]:
    """The replicas that partitions are to get, by topic and partition."""
    return {_partition_of(each): _integers(each, "replicas") for each in _partitions(data)}


def decode_preferred_elections(data: bytes | None) -> list[tuple[str, int]]:
    """The partitions, by topic and number, that are to be led by their first replica."""
    return [_partition_of(each) for each in _partitions(data)]


def encode_config_change(entity_path: str) -> bytes:
    """What tells the other brokers that the configs at `/config/<entity_path>` have changed."""
    return _encode({"version": 2, "entity_path": entity_path})


def encode_log_dir_event(broker_id: int) -> bytes:
    """What tells the controller that a data directory of the broker has failed."""
    return _encode({"version": 1, "broker": broker_id, "event": 1})


def decode_log_dir_event(data: bytes | None) -> int:
    """The broker id."""
    return _integer(_decode(data, newest=1), "broker")


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


def _decode(data: bytes | None, newest: int | None = None) -> dict[str, object]:
    try:
        document: Any = json.loads("null" if data is None else data.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    fields = cast("dict[str, object]", document)
    if newest is not None and _integer(fields, "version") > newest:
        raise ValueError(f"version {fields['version']} is newer than {newest}")
    return fields


def _partitions(data: bytes | None) -> list[Mapping[str, object]]:
    listed = _decode(data, newest=1).get("partitions")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in cast("list[object]", listed)):
        raise ValueError("no partitions")
    return cast("list[Mapping[str, object]]", listed)


def _partition_of(document: Mapping[str, object]) -> tuple[str, int]:
    return _text(document, "topic"), _integer(document, "partition")


def _integers(document: Mapping[str, object], key: str) -> tuple[int, ...]:
    listed = document.get(key)
    if not isinstance(listed, list) or not all(_is_int32(each) for each in cast("list[object]", listed)):
        raise ValueError(f"{key} is not a list of integers")
    return tuple(cast("Sequence[int]", listed))


def _by_partition(replicas: Mapping[int, Sequence[int]]) -> dict[str, list[int]]:
    return {str(partition): list(broker_ids) for partition, broker_ids in sorted(replicas.items())}


def _replicas(document: Mapping[str, object], key: str) -> dict[int, tuple[int, ...]]:
    listed = document.get(key, {})
    if not isinstance(listed, dict):
        raise ValueError(f"{key} is not an object")
    return {int(partition): _broker_ids(brokers) for partition, brokers in cast("dict[str, object]", listed).items()}


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is not a string")
    value.encode()  # Half of a surrogate pair, which JSON can say and nobody can send, is a ValueError too.
    return value


def _sendable(text: str) -> str:
    """The text, if a request can carry it."""
    size = len(text.encode())
    if size > MAX_STRING_BYTES:
        raise ValueError(f"a name of {size} bytes")
    return text


def _integer(document: Mapping[str, object], key: str) -> int:
    value = document.get(key)
    if not _is_int32(value):
        raise ValueError(f"{key} is not an integer of 32 bits")
    return cast("int", value)


def _is_int32(value: object, smallest: int = -MAX_INT - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= MAX_INT


def _broker_ids(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_is_int32(broker_id, 0) for broker_id in cast("list[object]", value)):
        raise ValueError(f"{value!r} is not a list of broker ids")
    return tuple(cast("Sequence[int]", value))


def _format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def understood(path: str, decode: Callable[[bytes | None], T], data: bytes | None) -> T:
    """What a node says. Raises ApiError: nobody writes over what cannot be understood."""
    try:
        return decode(data)
    except ValueError as error:
        raise ApiError(ErrorCode.UNKNOWN_SERVER_ERROR, f"{path} cannot be understood: {error}.") from error
