"""InitProducerId for producers that are idempotent and no more (KIP-98, KIP-360)."""

import pytest
from admin_broker import call, make_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.wire import init_producer_id
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse


@pytest.fixture
def broker() -> Broker:
    return make_broker()


def ask(broker: Broker, version: int = 5, **fields: object) -> InitProducerIdResponse:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1)
    for name, value in fields.items():
        setattr(request, name, value)
    response: InitProducerIdResponse = call(broker, init_producer_id, request, version)
    return response


@pytest.mark.parametrize("version", range(6))
def test_each_version_gives_an_id_with_epoch_0(version: int, broker: Broker) -> None:
    response = ask(broker, version)
    assert (response.error_code, response.producer_id, response.producer_epoch) == (0, 0, 0)


def test_ids_are_never_given_twice(broker: Broker) -> None:
    assert [ask(broker).producer_id for _ in range(3)] == [0, 1, 2]


def test_a_producer_that_lost_its_place_gets_another_id(broker: Broker) -> None:
    ask(broker)
    response = ask(broker, producer_id=0, producer_epoch=1)
    assert (response.error_code, response.producer_id, response.producer_epoch) == (0, 1, 0)


@pytest.mark.parametrize("fields", [{"producer_id": 5}, {"producer_epoch": 5}])
def test_half_an_identity_is_invalid(fields: dict[str, object], broker: Broker) -> None:
    response = ask(broker, **fields)
    assert (response.error_code, response.producer_id, response.producer_epoch) == (ErrorCode.INVALID_REQUEST, -1, -1)
