"""AlterConfigs (33), versions 0-2.

Replaces all overrides of a topic, of this broker, or of all brokers by those of the request: what is not named is
unset. KIP-133; superseded by IncrementalAlterConfigs.

Deviation: a resource that is named twice is refused, where Apache Kafka 3.9.1 never answers.
"""

from collections import Counter

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.config_resources import change_overrides, check_keys
from kpy.errors import ApiError, ErrorCode
from kpy.wire.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)


async def alter_configs(request: AlterConfigsRequest, client: Client, broker: Broker) -> AlterConfigsResponse:
    times = Counter((resource.resource_type, resource.resource_name) for resource in request.resources)
    responses: list[AlterConfigsResourceResponse] = []
    for resource in request.resources:
        response = AlterConfigsResourceResponse(
            error_message=None, resource_type=resource.resource_type, resource_name=resource.resource_name
        )
        try:
            if times[resource.resource_type, resource.resource_name] > 1:
                raise ApiError(ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
            await _replace(resource, request.validate_only, broker)
        except ApiError as error:
            response.error_code, response.error_message = error.code, error.message
        responses.append(response)
    return AlterConfigsResponse(responses=responses)


async def _replace(resource: AlterConfigsResource, validate_only: bool, broker: Broker) -> None:
    overrides = {config.name: config.value for config in resource.configs if config.value is not None}
    nulls = [config.name for config in resource.configs if config.value is None]
    check_keys([config.name for config in resource.configs], nulls)
    await change_overrides(
        resource.resource_type, resource.resource_name, lambda _: overrides, broker, validate_only=validate_only
    )
