"""Real clients over TLS, with certificates of their own and without: what they write comes back from each listener."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from compat.aiokafka.clients import Clients as AiokafkaClients
from compat.certificates import PASSWORD, Certificates
from compat.confluent.clients import Clients as ConfluentClients
from compat.confluent.clients import numbered, read_to_end, send_all, values_of
from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import VERSIONS, KafkaTools
from compat.kafka_python.clients import Clients as KafkaPythonClients

LISTENERS = ("SSL", "MUTUAL")
SMALL = numbered(200)
LARGE = [bytes([number]) * 700_000 for number in range(8)]
"""Each of them is many records of TLS."""


def confluent_settings(certificates: Certificates, listener: str) -> dict[str, str]:
    settings = {"security.protocol": "SSL", "ssl.ca.location": str(certificates.ca)}
    if listener == "MUTUAL":
        both = str(certificates.client)
        settings |= {"ssl.certificate.location": both, "ssl.key.location": both}
    return settings


def python_context(certificates: Certificates, listener: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if listener == "MUTUAL":
        context.load_cert_chain(certificates.client)
    return context


@pytest.mark.parametrize("listener", LISTENERS)
def test_librdkafka(broker: BrokerProcess, ports: dict[str, int], certificates: Certificates, listener: str) -> None:
    settings, topic = confluent_settings(certificates, listener), unique("confluent")
    with ConfluentClients(f"127.0.0.1:{ports[listener]}") as clients:
        send_all(clients.producer(settings), topic, SMALL + LARGE)
        found = read_to_end(clients.reader(TopicPartition(topic, 0, 0), settings=settings))
    assert values_of(found) == SMALL + LARGE


@pytest.mark.parametrize("listener", LISTENERS)
def test_kafka_python(broker: BrokerProcess, ports: dict[str, int], certificates: Certificates, listener: str) -> None:
    topic = unique("kafka-python")
    settings: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": python_context(certificates, listener)}
    with KafkaPythonClients(f"127.0.0.1:{ports[listener]}") as clients:
        producer = clients.producer(**settings)
        for value in SMALL + LARGE:
            producer.send(topic, value).get(20)
        consumer = clients.consumer(topic, **settings, consumer_timeout_ms=20_000)
        found = [record.value for _, record in zip(SMALL + LARGE, consumer, strict=False)]
    assert found == SMALL + LARGE


@pytest.mark.parametrize("listener", LISTENERS)
def test_aiokafka(broker: BrokerProcess, ports: dict[str, int], certificates: Certificates, listener: str) -> None:
    topic = unique("aiokafka")
    settings: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": python_context(certificates, listener)}

    async def round_trip() -> list[bytes | None]:
        async with AiokafkaClients(f"127.0.0.1:{ports[listener]}") as clients:
            producer = await clients.producer(**settings)
            for value in SMALL + LARGE:
                await producer.send_and_wait(topic, value)
            consumer = await clients.consumer(topic, **settings)
            return [(await consumer.getone()).value for _ in SMALL + LARGE]

    assert asyncio.run(asyncio.wait_for(round_trip(), 60)) == SMALL + LARGE


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_apache_kafkas_console_tools(
    broker: BrokerProcess,
    ports: dict[str, int],
    certificates: Certificates,
    listener: str,
    version: str,
    tmp_path: Path,
) -> None:
    """With key stores of type PKCS12, as keytool makes them."""
    settings = {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PKCS12",
        "ssl.truststore.location": str(certificates.ca_p12),
        "ssl.truststore.password": PASSWORD,
    }
    if listener == "MUTUAL":
        settings |= {
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(certificates.client_p12),
            "ssl.keystore.password": PASSWORD,
        }
    config = tmp_path / "client.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    tools, topic = KafkaTools(version, f"127.0.0.1:{ports[listener]}"), unique("java")
    lines = [value.decode() for value in SMALL]
    writing = ("--topic", topic, tools.options.producer_config, str(config))
    tools.run("console-producer", *writing, stdin="".join(f"{line}\n" for line in lines))
    reading = ("--topic", topic, "--from-beginning", "--max-messages", str(len(lines)), "--timeout-ms", "30000")
    found = tools.run("console-consumer", *reading, tools.options.consumer_config, str(config))
    assert found.lines == lines


@pytest.mark.parametrize("what", ["no certificate", "no trust", "plain text"])
def test_clients_that_cannot_agree_with_the_broker_hear_so_and_others_go_on(
    broker: BrokerProcess, ports: dict[str, int], certificates: Certificates, what: str
) -> None:
    settings = {
        "no certificate": confluent_settings(certificates, "SSL"),
        "no trust": {"security.protocol": "SSL"},
        "plain text": {},
    }[what]
    listener = "MUTUAL" if what == "no certificate" else "SSL"
    errors: list[KafkaError] = []
    with ConfluentClients(f"127.0.0.1:{ports[listener]}") as clients:
        producer = clients.producer({**settings, "error_cb": errors.append})
        while not errors:
            producer.poll(1)
    assert errors[0].code() in (KafkaError._SSL, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)
    test_librdkafka(broker, ports, certificates, listener)
