"""IncrementalAlterConfigs (44), versions 0-1.

Sets, unsets, appends to and subtracts from single configs of a topic, of this broker or of all brokers, and sets the
levels of this broker's loggers. What is not named stays. KIP-339, KIP-412.

Deviation: appending to an unknown config, and an unknown operation, say so; Apache Kafka answers UNKNOWN_SERVER_ERROR.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from kpy.api.broker import Broker
from kpy.api.broker_loggers import alter_levels
from kpy.api.client import Client
from kpy.api.config_resources import (
    Operation,
    ResourceType,
    change_overrides,
    check_broker_id,
    check_keys,
    to_operation,
)
from kpy.config_keys import find
from kpy.config_types import Key, Type, to_text
from kpy.errors import ApiError, ErrorCode
from kpy.topic_config import TOPIC_KEYS
from kpy.wire.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)


async def incremental_alter_configs(
    request: IncrementalAlterConfigsRequest, client: Client, broker: Broker
) -> IncrementalAlterConfigsResponse:
    times = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    responses: list[AlterConfigsResourceResponse] = []
    for resource in request.resources:
        response = AlterConfigsResourceResponse(
            error_message=None, resource_type=resource.resource_type, resource_name=resource.resource_name
        )
        try:
            if times[resource.resource_type, resource.resource_name] > 1:
                raise ApiError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
            await _alter(resource, request.validate_only, broker)
        except ApiError as error:
            response.error_code, response.error_message = error.code, error.message
        responses.append(response)
    return IncrementalAlterConfigsResponse(responses=responses)


async def _alter(resource: AlterConfigsResource, validate_only: bool, broker: Broker) -> None:
    nulls = [
        config.name
        for config in resource.configs
        if config.value is None and config.config_operation != Operation.DELETE
    ]
    check_keys([config.name for config in resource.configs], nulls)
    resource_type, name = resource.resource_type, resource.resource_name
    if resource_type == ResourceType.BROKER_LOGGER:
        check_broker_id(name, broker.config.broker_id)
        alter_levels(resource.configs, validate_only=validate_only)
        return
    of_topic = resource_type == ResourceType.TOPIC
    change = partial(_apply, resource.configs, of_topic=of_topic)
    await change_overrides(resource_type, name, change, broker, validate_only=validate_only)


def _apply(changes: Sequence[AlterableConfig], overrides: Mapping[str, str], *, of_topic: bool) -> dict[str, str]:
    """The overrides after the changes. Values are not validated yet."""
    altered = dict(overrides)
    for change in changes:
        value = change.value or ""
        operation = to_operation(change.config_operation)
        if operation is Operation.SET:
            altered[change.name] = value
        elif operation is Operation.DELETE:
            altered.pop(change.name, None)
        else:
            known = TOPIC_KEYS.get(change.name) if of_topic else find(change.name)
            items = _list_items(change, known, altered.get(change.name))
            named = value.split(",")
            if operation is Operation.APPEND:
                present = set(items)
                items += [item for item in named if item not in present]
            else:
                removed = set(named)
                items = [item for item in items if item not in removed]
            altered[change.name] = ",".join(items)
    return altered


def _list_items(change: AlterableConfig, key: Key | None, override: str | None) -> list[str]:
    """The items of a list before it is changed: its override's, or those of its default."""
    if key is None:
        raise ApiError(ErrorCode.INVALID_CONFIG, f"Unknown config name: {change.name}")
    if key.type is not Type.LIST:
        operation = Operation(change.config_operation).name.lower()
        raise ApiError(
            ErrorCode.INVALID_CONFIG, f"Config value {operation} is not allowed for config key: {change.name}"
        )
    text = to_text(key.default) if override is None else override
    return text.split(",") if text else []
