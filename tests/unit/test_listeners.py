"""Listeners are parsed and checked by Apache Kafka's rules."""

import pytest

from kpy.config_types import ConfigError
from kpy.listeners import (
    Endpoint,
    check_distinct_ports,
    check_reachable,
    from_flag,
    on_every_interface,
    parse_listeners,
    parse_protocol_map,
)


def test_listeners_have_names_hosts_and_ports():
    assert parse_listeners("listeners", "plaintext://localhost:9092, MY_NET://[::1]:0,ALL://:9094") == (
        Endpoint("PLAINTEXT", "localhost", 9092),
        Endpoint("MY_NET", "::1", 0),
        Endpoint("ALL", "", 9094),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost:9092", "not of the form NAME://host:port"),
        ("PLAINTEXT://localhost", "not of the form NAME://host:port"),
        ("://localhost:9092", "not of the form NAME://host:port"),
        ("PLAINTEXT://a b:9092", "not of the form NAME://host:port"),
        ("PLAINTEXT://localhost:65536", "port 65536 is not between 0 and 65535"),
        ("PLAINTEXT://localhost:-1", "port -1 is not between 0 and 65535"),
        ("A://:1,a://:2", "A is there twice"),
    ],
)
def test_malformed_listeners_are_refused(text: str, why: str):
    with pytest.raises(ConfigError, match=why):
        parse_listeners("listeners", text)


@pytest.mark.parametrize("text", ["A://:0,B://:0", "A://127.0.0.1:9092,B://[::1]:9092", "A://h:9092,B://h:9093"])
def test_ports_may_be_shared_when_ephemeral_or_by_two_address_families(text: str):
    check_distinct_ports("listeners", text, parse_listeners("listeners", text))


@pytest.mark.parametrize(
    "text",
    ["A://:9092,B://h:9092", "A://127.0.0.1:9092,B://127.0.0.2:9092", "A://127.0.0.1:9092,B://[::1]:9092,C://:9092"],
)
def test_ports_may_not_be_shared_otherwise(text: str):
    with pytest.raises(ConfigError, match="9092 is there twice"):
        check_distinct_ports("listeners", text, parse_listeners("listeners", text))


def test_a_protocol_map_is_not_case_sensitive():
    assert parse_protocol_map("k", "docker:plaintext, OUT:SASL_SSL") == {"DOCKER": "PLAINTEXT", "OUT": "SASL_SSL"}


@pytest.mark.parametrize("text", ["PLAINTEXT", "A:TLS", ":PLAINTEXT"])
def test_a_malformed_protocol_map_is_refused(text: str):
    with pytest.raises(ConfigError, match="not of the form NAME:PROTOCOL"):
        parse_protocol_map("k", text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_clients_cannot_be_sent_to_every_interface(host: str):
    with pytest.raises(ConfigError, match="--advertise localhost:9092"):
        check_reachable("advertised.listeners", (Endpoint("PLAINTEXT", host, 9092),))


def test_listeners_that_go_with_advertised_ones_keep_names_and_ports():
    assert on_every_interface("A://h:1,B://[::1]:2") == "A://0.0.0.0:1,B://0.0.0.0:2"


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("9093", "PLAINTEXT://localhost:9093"),
        (":9093", "PLAINTEXT://:9093"),
        ("host", "PLAINTEXT://host:9092"),
        ("host:0", "PLAINTEXT://host:0"),
        ("[::1]:9092", "PLAINTEXT://[::1]:9092"),
        ("DOCKER://host:1", "DOCKER://host:1"),
    ],
)
def test_a_flag_takes_short_forms(text: str, listener: str):
    assert from_flag("--listen", text) == listener


@pytest.mark.parametrize("text", ["::1:9092", "host:", "host:port", "a b:1", ""])
def test_a_flag_that_is_no_address_is_refused(text: str):
    with pytest.raises(ConfigError, match="must be host:port"):
        from_flag("--listen", text)
