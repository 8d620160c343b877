"""The checks that span several keys, and what kpy refuses because honouring it halfway would not be safe.

They follow Apache Kafka's KafkaConfig.validateValues. Each raises ConfigError, to which `BrokerConfig` adds the origin.
"""

from collections.abc import Container, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from kpy import listeners
from kpy.config_keys import BROKER_KEYS, find
from kpy.config_types import ConfigError, Value, to_text
from kpy.listeners import Endpoint

Values = Mapping[str, Value]

_MIB: Final = 1024 * 1024

_UNAVAILABLE: Final = {
    "authorizer.class.name": "authorization is not available in this version of kpy, so everybody could do everything",
    "create.topic.policy.class.name": "kpy cannot run Java classes, so the policy would not be kept",
    "alter.config.policy.class.name": "kpy cannot run Java classes, so the policy would not be kept",
    "client.quota.callback.class": "kpy cannot run Java classes, so the quotas would not be kept",
    "remote.log.storage.system.enable": "kpy has no tiered storage",
    "ssl.engine.factory.class": "kpy cannot run Java classes; certificates come from ssl.keystore.*",
    "config.providers": "config providers are not available in this version of kpy; write the values themselves",
}
"""Keys whose every value but the default stops the start."""

_NOT_ABOVE: Final = (
    ("replica.fetch.wait.max.ms", "replica.socket.timeout.ms"),
    ("replica.fetch.wait.max.ms", "replica.lag.time.max.ms"),
    ("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("group.min.session.timeout.ms", "group.max.session.timeout.ms"),
    ("group.consumer.min.session.timeout.ms", "group.consumer.session.timeout.ms"),
    ("group.consumer.session.timeout.ms", "group.consumer.max.session.timeout.ms"),
    ("group.consumer.min.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.max.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms", "group.consumer.session.timeout.ms"),
)
"""Pairs of which the first may not be greater than the second."""

_ONE_BROKER: Final = (
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
)


def check_available(values: Values, texts: Mapping[str, str]) -> None:
    """Refuses what would be unsafe to ignore. `texts` has the keys that are set, those outside the table included."""
    for key, allowed in _UNAVAILABLE.items():
        text = texts.get(key, "").strip()
        if text and values.get(key) != (BROKER_KEYS[key].default if key in BROKER_KEYS else ""):
            raise ConfigError(key, text, allowed)


def check_values(values: Values) -> None:
    """The rules between numbers, and those on a single value that its row in the table cannot express."""
    _check_identity(values)
    _check_zookeeper(values)
    for lower, upper in _NOT_ABOVE:
        if _number(values, lower) > _number(values, upper):
            raise _blame(values, lower, f"must not be greater than {upper}={to_text(values[upper])}")
    for key, minimum in (("log.roll.ms", 1), ("log.roll.jitter.ms", 0)):
        if values[key] is not None and _number(values, key) < minimum:
            raise _blame(values, key, f"must be at least {minimum}")
    for key in ("log.retention.ms", "log.retention.minutes", "log.retention.hours"):
        if values[key] == 0:
            raise _blame(values, key, "must be -1 (no limit) or at least 1")
    if _number(values, "log.cleaner.dedupe.buffer.size") <= _MIB * _number(values, "log.cleaner.threads"):
        raise _blame(values, "log.cleaner.dedupe.buffer.size", "must be more than 1 MiB for each cleaner thread")
    if 0 < _number(values, "queued.max.request.bytes") < _number(values, "socket.request.max.bytes"):
        raise _blame(values, "queued.max.request.bytes", "must be -1 or at least socket.request.max.bytes")
    overrides = parse_connection_overrides(str(values["max.connections.per.ip.overrides"]))
    if values["max.connections.per.ip"] == 0 and not overrides:
        raise _blame(values, "max.connections.per.ip", "can be 0 only together with max.connections.per.ip.overrides")
    idle, delay = "connections.max.idle.ms", "connection.failed.authentication.delay.ms"
    if 0 <= _number(values, idle) <= _number(values, delay):
        raise _blame(values, delay, f"must be less than {idle}={to_text(values[idle])}")
    if "classic" not in names(values, "group.coordinator.rebalance.protocols"):
        raise _blame(values, "group.coordinator.rebalance.protocols", "cannot leave out classic")


def on_zookeeper(values: Values) -> bool:
    """Whether the cluster's metadata is in ZooKeeper. A broker with KRaft's roles has none, as in Apache Kafka."""
    return bool(values["zookeeper.connect"]) and not values["process.roles"]


def _check_zookeeper(values: Values) -> None:
    if not on_zookeeper(values):
        return
    _check_zookeeper_address(values)
    for key in ("zookeeper.session.timeout.ms", "zookeeper.connection.timeout.ms"):
        if values[key] is not None and _number(values, key) < 1:
            raise _blame(values, key, "must be at least 1")
    tls = bool(values["zookeeper.ssl.client.enable"])
    has_certificate = tls and values["zookeeper.ssl.keystore.location"]
    if values["zookeeper.set.acl"] and not (has_certificate or values.get("java.security.auth.login.config")):
        allowed = (
            "needs somebody to be for ZooKeeper: a login in java.security.auth.login.config, or"
            " zookeeper.ssl.client.enable=true and a certificate in zookeeper.ssl.keystore.location"
        )
        raise _blame(values, "zookeeper.set.acl", allowed)
    for store in ("keystore", "truststore"):
        location, kind = f"zookeeper.ssl.{store}.location", f"zookeeper.ssl.{store}.type"
        if not tls or not values[location]:
            continue
        is_pem = str(values[kind]).upper() == "PEM" if values[kind] else str(values[location]).endswith(".pem")
        if not is_pem:
            raise _blame(values, location, f"kpy reads PEM files: the name ends in .pem, or {kind} is PEM")
    for key in ("zookeeper.ssl.crl.enable", "zookeeper.ssl.ocsp.enable"):
        if tls and values[key]:
            raise _blame(values, key, "kpy cannot check whether ZooKeeper's certificate has been revoked")


def _check_zookeeper_address(values: Values) -> None:
    key = "zookeeper.connect"
    hosts, slash, chroot = str(values[key]).partition("/")
    for host in hosts.split(","):
        name, colon, port = host.strip().rpartition(":")
        if colon and not (name and port.isdecimal() and 0 < int(port) < 65536):
            raise _blame(values, key, f"{host.strip()!r} is not of the form host:port")
        if not host.strip():
            raise _blame(values, key, "must be host:port, several separated by commas, and perhaps a /path at the end")
    if slash and any(part in ("", ".", "..") for part in chroot.rstrip("/").split("/") if chroot.rstrip("/")):
        raise _blame(values, key, f"/{chroot} is not a path of ZooKeeper's")


def _check_identity(values: Values) -> None:
    if values["broker.id"] != values["node.id"]:
        raise _blame(values, "node.id", f"must be the same as broker.id={values['broker.id']}")
    if _number(values, "broker.id") < 0:
        raise _blame(values, "broker.id", "must be at least 0; kpy does not generate ids")
    highest = _number(values, "reserved.broker.max.id")
    by_zookeeper_rules = values["broker.id.generation.enable"] and not values["process.roles"]
    if by_zookeeper_rules and _number(values, "broker.id") > highest:
        raise _blame(values, "broker.id", f"must not be greater than reserved.broker.max.id={highest}")
    roles = names(values, "process.roles")
    if roles and "broker" not in roles:
        raise _blame(values, "process.roles", "a node that is only a controller would have nothing to do in kpy")
    voters = names(values, "controller.quorum.voters")
    if len(voters) > 1 or any(voter.split("@")[0] != str(values["node.id"]) for voter in voters):
        allowed = "kpy takes no part in KRaft quorums; only this node itself may be named"
        raise _blame(values, "controller.quorum.voters", allowed)
    if not roles and values["controller.listener.names"]:
        raise _blame(values, "controller.listener.names", "must be empty without process.roles")


@lru_cache(1)
def parse_connection_overrides(text: str) -> Mapping[str, int]:
    """The limits of max.connections.per.ip.overrides, by host: asked for at each connection. Raises ConfigError."""
    key = "max.connections.per.ip.overrides"
    limits: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, _, count = entry.rpartition(":")
        if not host or not count.isdecimal():
            raise ConfigError(key, text, f"{entry!r} is not of the form host:count")
        limits[host.strip()] = int(count)
    return limits


class Listeners(NamedTuple):
    """Where to listen, where clients are told to connect, which listener brokers use among themselves, and what is
    spoken on each, by its name.
    """

    endpoints: tuple[Endpoint, ...]
    advertised: tuple[Endpoint, ...]
    inter_broker: str
    security_protocols: Mapping[str, str]


def resolve_listeners(values: Values, explicit: Container[str]) -> Listeners:
    """The endpoints of the broker, without those of a KRaft controller. `explicit` has the keys that were set."""
    text, map_key = str(values["listeners"]), "listener.security.protocol.map"
    controllers = {name.strip().upper() for name in str(values["controller.listener.names"] or "").split(",")}
    every = listeners.parse_listeners("listeners", text)
    listeners.check_distinct_ports("listeners", text, every)
    endpoints = tuple(endpoint for endpoint in every if endpoint.name not in controllers)
    protocols = listeners.parse_protocol_map(map_key, str(values[map_key]))
    listeners.check_protocols("listeners", endpoints, protocols)
    if not endpoints:
        raise ConfigError("listeners", text, "there must be at least one listener for clients")

    advertised = endpoints
    if values["advertised.listeners"]:
        key, text = "advertised.listeners", str(values["advertised.listeners"])
        every = listeners.parse_listeners(key, text)
        advertised = tuple(endpoint for endpoint in every if endpoint.name not in controllers)
        opened = [endpoint.name for endpoint in endpoints]
        for endpoint in advertised:
            if endpoint.name not in opened:
                raise ConfigError(key, str(endpoint), f"listeners has no {endpoint.name}, only {', '.join(opened)}")
    listeners.check_reachable("advertised.listeners", advertised)
    inter_broker = _inter_broker_listener(values, explicit, advertised, protocols)
    return Listeners(endpoints, advertised, inter_broker, {end.name: protocols[end.name] for end in endpoints})


def _inter_broker_listener(
    values: Values, explicit: Container[str], advertised: tuple[Endpoint, ...], protocols: Mapping[str, str]
) -> str:
    by_name, by_protocol = "inter.broker.listener.name", "security.inter.broker.protocol"
    if values[by_name] and by_protocol in explicit:
        raise _blame(values, by_name, f"cannot be set together with {by_protocol}")
    key = by_name if values[by_name] else by_protocol
    name = str(values[key]).upper()
    advertised_names = [endpoint.name for endpoint in advertised]
    if name not in advertised_names:
        raise _blame(values, key, f"must be one of the advertised listeners: {', '.join(advertised_names)}")
    if on_zookeeper(values) and protocols[name] != "PLAINTEXT":
        raise _blame(values, key, "brokers of several speak PLAINTEXT among themselves in this version of kpy")
    control = str(values["control.plane.listener.name"] or "").upper()
    if control and (control == name or control not in advertised_names or control not in protocols):
        allowed = "must be an advertised listener other than the one brokers use among themselves"
        raise _blame(values, "control.plane.listener.name", allowed)
    return name


def clamp_to_one_broker(values: dict[str, Value]) -> list[str]:
    """Lowers in place what a single broker cannot give; says so. Apache Kafka would let the first consumer wait for
    ever.
    """
    said: list[str] = []
    for key in () if on_zookeeper(values) else _ONE_BROKER:
        if _number(values, key) > 1:
            said.append(f"{key}={to_text(values[key])} needs more than the one broker there is; 1 is used")
            values[key] = 1
    return said


def remarks(texts: Mapping[str, str], origins: Mapping[str, str]) -> list[str]:
    """What the operator should know about keys that are set but do nothing: unknown ones, and those of KRaft."""
    unknown = (key for key in texts if find(key) is None and not key.startswith(("rsm.config.", "rlmm.config.")))
    said = [f"unknown key {key}, kept without effect{_similar(key)} ({origins[key]})" for key in unknown]
    if texts.get("zookeeper.connect") and texts.get("process.roles"):
        said.append("zookeeper.connect is ignored beside process.roles, as in Apache Kafka")
    ignored = [
        key
        for key in texts
        if key.startswith(("process.roles", "controller.quorum.", "controller.listener.", "metadata.log."))
    ]
    if ignored:
        said.append(f"kpy needs no KRaft controller and ignores {', '.join(sorted(ignored))}")
    return said


def _similar(key: str) -> str:
    # Imported here because a configuration without mistakes does not need it.
    import difflib

    close = difflib.get_close_matches(key, BROKER_KEYS, 1, 0.85)
    return f"; did you mean {close[0]}?" if close else ""


def data_dirs(values: Values) -> tuple[Path, ...]:
    """The directories of log.dirs, or else of log.dir."""
    key = "log.dir" if values["log.dirs"] is None else "log.dirs"
    parts = [part.strip() for part in str(values[key]).split(",")]
    if not all(parts):
        raise _blame(values, key, "must be one or more directories, separated by commas")
    return tuple(Path(part) for part in parts)


def names(values: Values, key: str) -> tuple[str, ...]:
    """The value of a key whose type is a list."""
    value = values[key]
    assert isinstance(value, tuple)
    return value


def _number(values: Values, key: str) -> float:
    value = values[key]
    assert isinstance(value, int | float), key
    return value


def _blame(values: Values, key: str, allowed: str) -> ConfigError:
    return ConfigError(key, to_text(values[key]) or "", allowed)
