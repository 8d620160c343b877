"""DescribeConfigs (32), versions 0-4.

Configs of topics, of this broker (or, with an empty name, of all brokers by default), and the levels of its loggers.
No keys asked means all; keys that do not exist are left out. Each broker answers for itself only. KIP-133, KIP-226
(synonyms), KIP-412.

Deviation: a resource of an unknown type fails alone, where Apache Kafka fails the whole request.
"""

from kpy.api.broker import Broker
from kpy.api.broker_loggers import levels
from kpy.api.client import Client
from kpy.api.config_resources import ResourceType
from kpy.config_description import ConfigEntry, Source, describe_broker, describe_broker_defaults, describe_topic
from kpy.controller.topics import validate_name
from kpy.errors import ApiError, ErrorCode
from kpy.wire.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

DYNAMIC_BROKER_LOGGER = 6
"""The config source of log levels, which no other config has."""


def describe_configs(request: DescribeConfigsRequest, client: Client, broker: Broker) -> DescribeConfigsResponse:
    results: list[DescribeConfigsResult] = []
    for resource in request.resources:
        result = DescribeConfigsResult(resource_type=resource.resource_type, resource_name=resource.resource_name)
        try:
            result.configs = _describe(resource, request, broker)
        except ApiError as error:
            result.error_code, result.error_message = error.code, error.message or ""
        results.append(result)
    return DescribeConfigsResponse(results=results)


def _describe(
    resource: DescribeConfigsResource, request: DescribeConfigsRequest, broker: Broker
) -> list[DescribeConfigsResourceResult]:
    name, keys = resource.resource_name, resource.configuration_keys
    match resource.resource_type:
        case ResourceType.TOPIC:
            validate_name(name)
            topic = broker.cluster.image.topics.get(name)
            if topic is None:
                raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            entries = describe_topic(topic.configs, broker.config, keys)
        case ResourceType.BROKER if not name:
            entries = describe_broker_defaults(broker.config, keys)
        case ResourceType.BROKER:
            _check_broker_id(name, broker.config.broker_id, " or empty string,")
            entries = describe_broker(broker.config, keys)
        case ResourceType.BROKER_LOGGER:
            _check_broker_id(name, broker.config.broker_id, "")
            return [_logger(logger, level) for logger, level in levels().items() if not keys or logger in keys]
        case ResourceType.CLIENT_METRICS:
            raise ApiError(ErrorCode.INVALID_REQUEST, "Config type client-metrics is only supported on KRaft clusters")
        case unexpected:
            raise ApiError(ErrorCode.INVALID_REQUEST, f"Unexpected resource type {unexpected} for resource {name}")
    return [_result(entry, request) for entry in entries]


def _result(entry: ConfigEntry, request: DescribeConfigsRequest) -> DescribeConfigsResourceResult:
    result = DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.read_only,
        is_default=entry.source == Source.DEFAULT,
        config_source=entry.source,
        is_sensitive=entry.sensitive,
        config_type=entry.type,
        documentation=entry.documentation if request.include_documentation else None,
    )
    if request.include_synonyms:
        result.synonyms = [
            DescribeConfigsSynonym(name=synonym.name, value=synonym.value, source=synonym.source)
            for synonym in entry.synonyms
        ]
    return result


def _logger(name: str, level: str) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult(name=name, value=level, config_source=DYNAMIC_BROKER_LOGGER)


def _check_broker_id(name: str, broker_id: int, alternative: str) -> None:
    """Raises ApiError unless `name` is this broker: each one knows its own configs only."""
    if not name:
        raise ApiError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")
    try:
        named = int(name)
    except ValueError:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}") from None
    if named != broker_id:
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"Unexpected broker id, expected {broker_id}{alternative} but received {name}"
        )
