"""The addresses of a broker: what `listeners`, `advertised.listeners` and `listener.security.protocol.map` say.

The rules are those of Apache Kafka's SocketServerConfigs, CoreUtils.listenerListToEndPoints and KafkaConfig.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from kpy.config_types import ConfigError

SECURITY_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SUPPORTED_PROTOCOLS: Final = frozenset({"PLAINTEXT", "SSL"})
"""What kpy can speak. A listener of another protocol stops the start."""

DEFAULT_PORT: Final = 9092
_MAX_PORT: Final = 65535
_LISTENER: Final = re.compile(r"(.*)://\[?([0-9a-zA-Z\-%._:]*)\]?:(-?[0-9]{1,10})")
_IPV4: Final = re.compile(r"[0-9]+(\.[0-9]+){3}")
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})


class Endpoint(NamedTuple):
    """One listener: its upper-case name, the host ("" is every interface), the port (0: the system chooses)."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


def parse_listeners(key: str, text: str) -> tuple[Endpoint, ...]:
    """The endpoints of NAME://host:port,... in order. Raises ConfigError naming `key`."""
    endpoints: list[Endpoint] = []
    for entry in filter(None, re.split(r"\s*,\s*", text.strip())):
        match = _LISTENER.fullmatch(entry)
        if match is None or not match[1]:
            raise ConfigError(key, text, f"{entry!r} is not of the form NAME://host:port")
        port = int(match[3])
        if not 0 <= port <= _MAX_PORT:
            raise ConfigError(key, text, f"port {port} is not between 0 and {_MAX_PORT}")
        endpoints.append(Endpoint(match[1].upper(), match[2], port))
    for name, count in Counter(endpoint.name for endpoint in endpoints).items():
        if count > 1:
            raise ConfigError(key, text, f"each listener must have a name of its own, and {name} is there twice")
    return tuple(endpoints)


def check_distinct_ports(key: str, text: str, endpoints: tuple[Endpoint, ...]) -> None:
    """Two listeners may share a port only if one is an IPv4 and the other an IPv6 address."""
    hosts: dict[int, list[str]] = {}
    for endpoint in endpoints:
        hosts.setdefault(endpoint.port, []).append(endpoint.host)
    for port, sharing in hosts.items():
        families = ["4" if _IPV4.fullmatch(host) else "6" if ":" in host else "name" for host in sharing]
        if port != 0 and len(sharing) > 1 and sorted(families) != ["4", "6"]:
            raise ConfigError(key, text, f"each listener must have a port of its own, and {port} is there twice")


def parse_protocol_map(key: str, text: str) -> dict[str, str]:
    """The protocol of each listener name, from NAME:PROTOCOL,... Raises ConfigError."""
    protocols: dict[str, str] = {}
    for entry in filter(None, re.split(r"\s*,\s*", text.strip())):
        name, _, protocol = entry.rpartition(":")
        if not name or protocol.upper() not in SECURITY_PROTOCOLS:
            allowed = f"{entry!r} is not of the form NAME:PROTOCOL with one of {', '.join(SECURITY_PROTOCOLS)}"
            raise ConfigError(key, text, allowed)
        protocols[name.strip().upper()] = protocol.upper()
    return protocols


def check_protocols(key: str, endpoints: tuple[Endpoint, ...], protocols: Mapping[str, str]) -> None:
    """Every listener needs a protocol, and one that kpy speaks."""
    for endpoint in endpoints:
        protocol = protocols.get(endpoint.name)
        if protocol is None:
            allowed = f"listener.security.protocol.map has no security protocol for listener {endpoint.name}"
            raise ConfigError(key, str(endpoint), allowed)
        if protocol not in SUPPORTED_PROTOCOLS:
            allowed = f"security protocol {protocol} is not available in this version of kpy, only "
            raise ConfigError(key, str(endpoint), allowed + ", ".join(sorted(SUPPORTED_PROTOCOLS)))


def check_reachable(key: str, endpoints: tuple[Endpoint, ...]) -> None:
    """Clients cannot connect to the address that stands for every interface."""
    for endpoint in endpoints:
        if endpoint.host in _ANYWHERE:
            hint = f"set advertised.listeners, for example with --advertise localhost:{endpoint.port}"
            allowed = f"clients cannot connect to {endpoint.host}; say which address they can reach: {hint}"
            raise ConfigError(key, str(endpoint), allowed)


def on_every_interface(advertised: str) -> str:
    """The listeners that go with advertised ones, by the rule of the apache/kafka image: same names, same ports."""
    return re.sub(r"://[^,]*:", "://0.0.0.0:", advertised)


def from_flag(flag: str, text: str) -> str:
    """What `--listen` and `--advertise` take, as a listener: host:port, [v6]:port, :port, port or host."""
    if "://" in text:
        return text
    if text.isdecimal():
        text = f"localhost:{text}"
    elif text and ":" not in text:
        text = f"{text}:{DEFAULT_PORT}"
    listener = f"PLAINTEXT://{text}"
    if not _LISTENER.fullmatch(listener) or (text.count(":") > 1 and not text.startswith("[")):
        raise ConfigError(flag, text, "must be host:port, for example localhost:9092 or [::1]:9092")
    return listener
