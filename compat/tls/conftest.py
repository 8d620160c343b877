"""A broker with two listeners of security protocol SSL: SSL asks for no certificate, MUTUAL for one of each client."""

import importlib
import warnings
from collections.abc import Iterator

import pytest

from compat.certificates import PASSWORD, Certificates, make_certificates
from compat.harness import BrokerProcess, free_port, running

with warnings.catch_warnings():
    # kafka-python loads its schemas by a function of importlib that is deprecated since Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    importlib.import_module("kafka")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"SSL": free_port(), "MUTUAL": free_port()}


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, ports: dict[str, int]
) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    addresses = {"PLAINTEXT": broker.port, **ports}
    broker.settings |= {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in addresses.items()),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SSL:SSL,MUTUAL:SSL",
        **certificates.of_broker(),
    }
    mutual = {
        "client.auth": "required",
        "keystore.type": "PKCS12",
        "keystore.location": str(certificates.server_p12),
        "keystore.password": PASSWORD,
        "truststore.type": "PKCS12",
        "truststore.location": str(certificates.ca_p12),
        "truststore.password": PASSWORD,
    }
    broker.settings |= {f"listener.name.mutual.ssl.{key}": value for key, value in mutual.items()}
    with running(broker):
        yield broker
        broker.stop()
