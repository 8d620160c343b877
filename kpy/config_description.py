"""Configs as DescribeConfigs shows them: each with its value, where that comes from, and what it overrides.

The rules are those of Apache Kafka's ConfigHelper, its corner cases included, because tools print what it answers.
"""

from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import NamedTuple

from kpy.config import BrokerConfig
from kpy.config_keys import BROKER_KEYS, INTERNAL_KEYS, OTHER_KEYS, find, synonyms
from kpy.config_types import READ_ONLY, Type, Value, to_text
from kpy.topic_config import BROKER_SYNONYMS, TOPIC_KEYS, topic_values


class Source(IntEnum):
    """Where a value comes from (DescribeConfigsResponse.ConfigSource)."""

    TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


class Synonym(NamedTuple):
    """One of the settings that a value was chosen from; the value of a sensitive one is None."""

    name: str
    value: str | None
    source: Source


class ConfigEntry(NamedTuple):
    """One config of a topic or broker. `synonyms` come in order of precedence; `type` is 0 for a key nobody knows."""

    name: str
    value: str | None
    source: Source
    synonyms: list[Synonym]
    type: int
    read_only: bool
    sensitive: bool
    documentation: str | None


def describe_topic(
    overrides: Mapping[str, str], broker: BrokerConfig, names: Collection[str] | None = None
) -> list[ConfigEntry]:
    """The configs of a topic: all, or those of `names` that exist."""
    values, layers = topic_values(overrides, broker), _layers(broker)
    return [_topic_entry(name, values[name], overrides, layers) for name in values if not names or name in names]


def describe_broker(broker: BrokerConfig, names: Collection[str] | None = None) -> list[ConfigEntry]:
    """The configs of this broker: all, or those of `names` that exist."""
    shown = [key for key in broker.values if key not in INTERNAL_KEYS or key in broker.origins]
    layers = _layers(broker)
    return [_broker_entry(name, broker.values[name], layers) for name in shown if not names or name in names]


def describe_broker_defaults(broker: BrokerConfig, names: Collection[str] | None = None) -> list[ConfigEntry]:
    """The dynamic configs kept for all brokers: all, or those of `names` that are set."""
    overrides = broker.cluster_overrides
    layers: Layers = ((overrides, Source.DYNAMIC_DEFAULT_BROKER),)
    return [_broker_entry(name, overrides[name], layers) for name in overrides if not names or name in names]


Layers = tuple[tuple[Mapping[str, str | None], Source], ...]


def _layers(broker: BrokerConfig) -> Layers:
    """All texts that are set, by key, the strongest layer first."""
    return (
        (broker.broker_overrides, Source.DYNAMIC_BROKER),
        (broker.cluster_overrides, Source.DYNAMIC_DEFAULT_BROKER),
        ({key: setting.text for key, setting in broker.settings.items()}, Source.STATIC_BROKER),
        ({key: to_text(value) for key, value in broker.defaults.items()}, Source.DEFAULT),
    )


def _topic_entry(name: str, value: Value, overrides: Mapping[str, str], layers: Layers) -> ConfigEntry:
    key = TOPIC_KEYS[name]
    shown = to_text(value)
    found: list[Synonym] = [Synonym(name, shown, Source.TOPIC)] if name in overrides else []
    if name in BROKER_SYNONYMS:
        found += _settings(BROKER_SYNONYMS[name][0], layers, sensitive=False)
    source = found[0].source if found else Source.DEFAULT
    return ConfigEntry(name, shown, source, found, key.type, False, False, key.doc)


def _broker_entry(name: str, value: Value, layers: Layers) -> ConfigEntry:
    # What is not in the table is kept back, as in Apache Kafka: it may be a password.
    key = None if name in OTHER_KEYS else find(name)
    sensitive = key is None or key.type is Type.PASSWORD
    found = _settings(name, layers, sensitive)
    return ConfigEntry(
        name,
        None if sensitive else to_text(value),
        found[0].source if found else Source.DEFAULT,
        found,
        key.type if key else 0,
        name not in BROKER_KEYS or BROKER_KEYS[name].update == READ_ONLY,
        sensitive,
        key.doc if key else None,
    )


def _settings(name: str, layers: Layers, sensitive: bool) -> list[Synonym]:
    """All that is set for `name` and its synonyms, layer by layer, from the first entry of `name` itself on.

    Leaving out what precedes that entry keeps listener overrides out of the description of the plain key. It also makes
    log.retention.hours invisible in retention.ms, as in Apache Kafka.
    """
    found = [
        Synonym(synonym, None if sensitive else layer[synonym], source)
        for layer, source in layers
        for synonym in synonyms(name)
        if layer.get(synonym) is not None
    ]
    first = next((index for index, entry in enumerate(found) if entry.name == name), len(found))
    return found[first:]
