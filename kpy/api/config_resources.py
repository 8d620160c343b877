"""The resources that have configs, and what AlterConfigs and IncrementalAlterConfigs both check and store.

The checks, their order and their texts are those of Apache Kafka's ConfigAdminManager and ZkAdminManager.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from kpy.api.broker import Broker
from kpy.config import ConfigError, kafka_message, validate_overrides
from kpy.config_keys import without_listener
from kpy.controller.topics import check_config_size
from kpy.errors import ApiError, ErrorCode
from kpy.topic_config import validate_topic_configs


class ResourceType(IntEnum):
    """The code of what has configs (ConfigResource.Type)."""

    TOPIC = 2
    BROKER = 4
    """With an empty name: the defaults of all brokers."""
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16


class Operation(IntEnum):
    """What IncrementalAlterConfigs does with a config (AlterConfigOp.OpType)."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


def to_operation(code: int) -> Operation:
    """Raises ApiError for a code that is none."""
    try:
        return Operation(code)
    except ValueError:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Unknown operations type {code}") from None


def check_keys(keys: Sequence[str], without_value: Sequence[str]) -> None:
    """Raises ApiError for keys of a resource that come twice, or that lack the value they need."""
    if len(set(keys)) < len(keys):
        raise ApiError(ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
    if without_value:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Null value not supported for : {', '.join(without_value)}")


def find_overrides(resource_type: int, name: str, broker: Broker) -> Mapping[str, str]:
    """What a topic, this broker, or all brokers have been given so far. Raises ApiError for anything else."""
    image = broker.cluster.image
    match resource_type:
        case ResourceType.TOPIC:
            if not name:
                raise ApiError(ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed.")
            topic = image.topics.get(name)
            if topic is None:
                raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
            return topic.configs
        case ResourceType.BROKER:
            if name:
                check_broker_id(name, broker.config.broker_id)
            return image.broker_configs.get(_broker_entity(name, broker), {})
        case ResourceType.CLIENT_METRICS:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
            )
        case unknown:
            raise ApiError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {unknown}")


async def change_overrides(
    resource_type: int,
    name: str,
    change: Callable[[Mapping[str, str]], Mapping[str, str]],
    broker: Broker,
    *,
    validate_only: bool,
) -> None:
    """Validates what `change` makes of the overrides that a resource has so far, and stores it. Raises ApiError."""

    def changed(overrides: Mapping[str, str]) -> Mapping[str, str]:
        after = change(overrides)
        _validate(resource_type, name, after, broker)
        return after

    # What the image has is judged first: so a change that is refused, or only to be validated, writes nothing.
    changed(find_overrides(resource_type, name, broker))
    if validate_only:
        return
    if resource_type == ResourceType.TOPIC:
        await broker.cluster.alter_configs("topics", name, changed)
        return
    await broker.cluster.alter_configs("brokers", _broker_entity(name, broker), changed)
    if name and broker.tls is not None:
        # Also when no value is another one: a file may have been, and this is how Apache Kafka is told (KIP-226).
        broker.tls.reload(broker.config)


def _validate(resource_type: int, name: str, overrides: Mapping[str, str], broker: Broker) -> None:
    check_config_size(overrides)
    if resource_type != ResourceType.TOPIC:
        config = validate_overrides(broker.config, overrides, per_broker=name != "")
        if broker.tls is not None and any((without_listener(key) or "").startswith("ssl.") for key in overrides):
            try:
                broker.tls.check(config)
            except ConfigError as error:
                raise ApiError(ErrorCode.INVALID_REQUEST, kafka_message(error)) from error
        return
    try:
        validate_topic_configs(overrides, broker.config)
    except ApiError as error:
        if isinstance(error.__cause__, ConfigError):
            # Where a value is invalid by itself, and only there, Apache Kafka says of which topic.
            where = f"Invalid config value for resource ConfigResource(type=TOPIC, name='{name}')"
            raise ApiError(error.code, f"{where}: {error.message}") from error
        raise


def check_broker_id(name: str, broker_id: int) -> None:
    """Raises ApiError unless `name` is this broker: each one changes and knows its own configs only."""
    try:
        named = int(name)
    except ValueError:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Node id must be an integer, but it is: {name}") from None
    if named != broker_id:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Unexpected broker id, expected {broker_id}, but received {name}")


def _broker_entity(name: str, broker: Broker) -> str:
    """The name that this broker's configs are kept under: "01" names broker 1 too."""
    return str(broker.config.broker_id) if name else ""
