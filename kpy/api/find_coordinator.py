"""FindCoordinator (10), versions 0-6.

Names the leader of the partition of __consumer_offsets that a group lives in, or of __transaction_state for a
transactional id, at the address of the listener the client asked on. The first question creates that topic. Version 1
adds the kind of key, 4 asks for several keys at once (KIP-699), 6 knows share groups.

Deviations: the first question is answered with the coordinator, where Apache Kafka creates the topic, answers
COORDINATOR_NOT_AVAILABLE and has the client ask again. Coordinators of share groups are not served: INVALID_REQUEST, as
from an Apache Kafka broker that has none.
"""

from collections.abc import Coroutine
from typing import Any

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.coordinator import Coordinator as CoordinatorShell
from kpy.errors import ApiError, ErrorCode
from kpy.wire.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

BATCH_SINCE = 4
GROUP_KEY_TYPE, TRANSACTION_KEY_TYPE, SHARE_KEY_TYPE = 0, 1, 2
NO_NODE = -1
SUCCESS_MESSAGE = "NONE"
"""What versions 1 to 3 say beside the error code 0."""


def find_coordinator(
    request: FindCoordinatorRequest, client: Client, broker: Broker
) -> FindCoordinatorResponse | Coroutine[Any, Any, FindCoordinatorResponse]:
    coordinator = _coordinator_of(request.key_type, broker)
    if coordinator is not None and coordinator.topic is None:
        return _create_and_find(request, client, broker, coordinator)
    return _answer(request, client, broker)


async def _create_and_find(
    request: FindCoordinatorRequest, client: Client, broker: Broker, coordinator: CoordinatorShell[Any]
) -> FindCoordinatorResponse:
    try:
        await coordinator.ensure_topic()
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


def _coordinator_of(key_type: int, broker: Broker) -> CoordinatorShell[Any] | None:
    if key_type == GROUP_KEY_TYPE:
        return broker.groups
    return broker.transactions if key_type == TRANSACTION_KEY_TYPE else None


def _find(key: str, key_type: int, client: Client, broker: Broker, why_not: str) -> Coordinator:
    coordinator = _coordinator_of(key_type, broker)
    if coordinator is None:
        is_share = key_type == SHARE_KEY_TYPE
        message = "Share groups are not served by this broker." if is_share else f"There is no key type {key_type}."
        return _not_found(key, ErrorCode.INVALID_REQUEST, message)
    topic = coordinator.topic
    if topic is None:
        return _not_found(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, why_not)
    leader = broker.cluster.image.brokers.get(topic.partitions[coordinator.partition_for(key)].leader)
    address = leader.endpoints.get(client.listener) if leader is not None else None
    if leader is None or address is None:
        return _not_found(key, ErrorCode.COORDINATOR_NOT_AVAILABLE, why_not)
    host, port = address
    return Coordinator(key=key, node_id=leader.broker_id, host=host, port=port)


def _not_found(key: str, error: ErrorCode, message: str) -> Coordinator:
    return Coordinator(key=key, node_id=NO_NODE, host="", port=NO_NODE, error_code=error, error_message=message)
