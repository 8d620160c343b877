"""A broker whose listener is of security protocol SSL: what is answered there, and what keeps it from starting."""

import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
from raw_client import Connect, RawClient, batch, error_name, frame, run_with_broker

from compat.certificates import Certificates, make_certificates
from kpy.config import BrokerConfig, ConfigError
from kpy.server import serve
from kpy.wire.describe_cluster import DescribeClusterRequest
from kpy.wire.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from kpy.wire.metadata import MetadataRequest

METADATA, ALTER_CONFIGS, DESCRIBE_CLUSTER = 3, 44, 60
BROKER = 4
LOCATION = "listener.name.ssl.ssl.keystore.location"
ONLY_SSL = {"listeners": "SSL://127.0.0.1:0", "security.inter.broker.protocol": "SSL"}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


async def over_tls(connect: Connect, certificates: Certificates, shows: Path | None = None) -> RawClient:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if shows is not None:
        context.load_cert_chain(shows)
    plain = (await connect()).stream
    return RawClient(trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True))


def test_records_go_in_and_out_and_clients_are_told_of_this_listener(
    tmp_path: Path, certificates: Certificates
) -> None:
    async def test(connect: Connect) -> None:
        async with await over_tls(connect, certificates) as client:
            await client.create_topic("t")
            values = [bytes([number]) * 100_000 for number in range(5)]
            for value in values:
                assert (await client.produce("t", batch(value))).error_code == 0
            records = bytes((await client.fetch("t", 0)).records)
            assert all(value in records for value in values)
            [broker] = (await client.ask(METADATA, MetadataRequest([]), 8)).brokers
            described = await client.ask(DESCRIBE_CLUSTER, DescribeClusterRequest(False), 0)
            assert (broker.host, broker.port) == (described.brokers[0].host, described.brokers[0].port)
            assert broker.port == client.stream.transport_stream.socket.getpeername()[1]

    run_with_broker(tmp_path / "data", test, {**ONLY_SSL, **certificates.of_broker()})


def test_clients_show_certificates_where_they_are_required(tmp_path: Path, certificates: Certificates) -> None:
    async def test(connect: Connect) -> None:
        async with await over_tls(connect, certificates, certificates.client) as client:
            await client.create_topic("t")
            assert (await client.produce("t", batch(b"value"))).error_code == 0
        refused = await over_tls(connect, certificates)
        await refused.send(frame(METADATA, MetadataRequest([]), 8))
        assert await refused.receive_frame() is None
        await refused.stream.transport_stream.aclose()

    run_with_broker(tmp_path / "data", test, {**ONLY_SSL, **certificates.asking_clients()})


async def set_config(client: RawClient, key: str, value: str) -> tuple[str, str | None]:
    """The name and the message of the error."""
    resource = AlterConfigsResource(BROKER, "1", [AlterableConfig(key, 0, value)])
    [response] = (await client.ask(ALTER_CONFIGS, IncrementalAlterConfigsRequest([resource], False), 1)).responses
    return error_name(response.error_code), response.error_message


@pytest.mark.parametrize("elsewhere", [False, True])
def test_new_connections_have_the_certificate_that_was_altered_last(
    tmp_path: Path, certificates: Certificates, elsewhere: bool
) -> None:
    """KIP-226: in another file, or in the same one under the name that it had."""
    others = make_certificates(tmp_path / "others")

    async def test(connect: Connect) -> None:
        async with await over_tls(connect, certificates) as old:
            await old.create_topic("t")
            if not elsewhere:
                others.server.replace(certificates.server)
            location = str(others.server if elsewhere else certificates.server)
            assert await set_config(old, LOCATION, location) == ("NONE", None)
            async with await over_tls(connect, others) as new:
                assert (await new.produce("t", batch(b"value"))).error_code == 0
            assert (await old.produce("t", batch(b"value"))).error_code == 0

    settings = {**ONLY_SSL, **certificates.of_broker(), LOCATION: str(certificates.server)}
    run_with_broker(tmp_path / "data", test, settings)


def test_a_certificate_that_cannot_be_used_is_refused_and_that_of_before_stays(
    tmp_path: Path, certificates: Certificates
) -> None:
    async def test(connect: Connect) -> None:
        async with await over_tls(connect, certificates) as client:
            message = f"Invalid value /no/such for configuration {LOCATION}: cannot be read: No such file or directory"
            assert await set_config(client, LOCATION, "/no/such") == ("INVALID_REQUEST", message)
            async with await over_tls(connect, certificates) as another:
                await another.create_topic("t")

    run_with_broker(tmp_path / "data", test, {**ONLY_SSL, **certificates.of_broker()})


def test_a_certificate_that_was_altered_is_there_after_a_restart(tmp_path: Path, certificates: Certificates) -> None:
    others = make_certificates(tmp_path / "others")
    settings = {**ONLY_SSL, **certificates.of_broker()}

    async def alter(connect: Connect) -> None:
        async with await over_tls(connect, certificates) as client:
            assert await set_config(client, LOCATION, str(others.server)) == ("NONE", None)

    async def expect(expected: Certificates, connect: Connect) -> None:
        async with await over_tls(connect, expected) as client:
            assert (await client.ask(METADATA, MetadataRequest([]), 8)).brokers

    run_with_broker(tmp_path / "data", alter, settings)
    run_with_broker(tmp_path / "data", partial(expect, others), settings)
    others.server.unlink()
    # Dynamic configs that cannot be used are no reason to stop.
    run_with_broker(tmp_path / "data", partial(expect, certificates), settings)


@pytest.mark.parametrize(
    ("keys", "blamed"),
    [
        ({}, "ssl.keystore.location"),
        ({"keystore_location": "/no/such/file"}, "ssl.keystore.location"),
        ({"key_password": "secret", "keystore_type": "PKCS12"}, "ssl.keystore.password"),
    ],
)
def test_a_listener_that_cannot_speak_tls_stops_the_start(
    tmp_path: Path, certificates: Certificates, keys: Mapping[str, str], blamed: str
) -> None:
    settings = certificates.of_broker(**keys) if keys else {}
    config = BrokerConfig.of({**ONLY_SSL, **settings, "log.dirs": str(tmp_path / "data")})

    async def main() -> None:
        await serve(config, started=lambda listeners: None)

    with pytest.raises(ConfigError) as error:
        trio.run(main)
    assert error.value.key == blamed
