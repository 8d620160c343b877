"""FindCoordinator (10), versions 0-6.

Names the leader of the partition of __consumer_offsets that a group lives in, at the address of the listener the
client asked on. The first question creates that topic. Versions 4 and later ask for several groups at once (KIP-699).

Deviations: the first question is answered with the coordinator, where Apache Kafka creates the topic, answers
COORDINATOR_NOT_AVAILABLE and has the client ask again. Coordinators of transactions and of share groups are not served:
INVALID_REQUEST, which ends such a client with a clear message instead of letting it ask forever.
"""

from collections.abc import Coroutine
from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.wire.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

BATCH_SINCE = 4
GROUP_KEY_TYPE = 0
NOT_SERVED = {1: "Transactions are not served by this broker.", 2: "Share groups are not served by this broker."}
NO_NODE = -1
SUCCESS_MESSAGE = "NONE"
"""What versions 1 to 3 say beside the error code 0."""


def find_coordinator(
    request: FindCoordinatorRequest, client: Client, broker: Broker
) -> FindCoordinatorResponse | Coroutine[Any, Any, FindCoordinatorResponse]:
    if request.key_type == GROUP_KEY_TYPE and broker.groups.topic is None:
        return _create_and_find(request, client, broker)
    return _answer(request, client, broker)


async def _create_and_find(request: FindCoordinatorRequest, client: Client, broker: Broker) -> FindCoordinatorResponse:
    try:
        await broker.groups.ensure_topic()
    except ApiError as error:
        return _answer(request, client, broker, str(error))
    return _answer(request, client, broker)


def _answer(
    request: FindCoordinatorRequest,
    client: Client,
    broker: Broker,
    why_not: str = "The coordinator is not available.",
) -> FindCoordinatorResponse:
    """`why_not` is said where there is no coordinator."""
    if client.version >= BATCH_SINCE:
        return FindCoordinatorResponse(
            coordinators=[_find(key, request.key_type, client, broker, why_not) for key in request.coordinator_keys]
        )
    found = _find(request.key, request.key_type, client, broker, why_not)
    return FindCoordinatorResponse(
        error_code=found.error_code,
        error_message=found.error_message if found.error_code else SUCCESS_MESSAGE,
        node_id=found.node_id,
        host=found.host,
        port=found.port,
    )


def _find(key: str, key_type: int, client: Client, broker: Broker, why_not: str) -> Coordinator:
    if key_type != GROUP_KEY_TYPE:
        return _not_found(key, ErrorCode.INVALID_REQUEST, NOT_SERVED.get(key_type, f"There is no key type {key_type}."))
    topic = broker.groups.topic
    if topic is None:
        return _not_found(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, why_not)
    leader = broker.cluster.image.brokers.get(topic.partitions[broker.groups.partition_for(key)].leader)
    address = leader.endpoints.get(client.listener) if leader is not None else None
    if leader is None or address is None:
        return _not_found(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, why_not)
    host, port = address
    return Coordinator(key=key, node_id=leader.broker_id, host=host, port=port)


def _not_found(key: str, error: ErrorCode, message: str) -> Coordinator:
    return Coordinator(key=key, node_id=NO_NODE, host="", port=NO_NODE, error_code=error, error_message=message)
