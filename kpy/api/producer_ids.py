"""Requests that may need a new producer id wait until this broker has some (Kafka class RPCProducerIdManager)."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from kpy.api.broker import Broker
from kpy.errors import ApiError


def with_producer_ids(broker: Broker, ask: Callable[[], Any]) -> Any | Coroutine[Any, Any, Any]:
    """The answer to `ask`, at once where there are producer ids, else when a block of them is there.

    Without a block it is asked all the same: whether an id is needed only the transaction's state tells.
    """
    return ask() if broker.cluster.producer_ids else _when_there_are_some(broker, ask)


async def _when_there_are_some(broker: Broker, ask: Callable[[], Any]) -> Any:
    with suppress(ApiError):  # Who needs an id is told so by the coordinator, which knows the words.
        await broker.cluster.producer_ids.ensure()
    return ask()
