"""The table of keys is complete and agrees with itself."""

import re
from collections import Counter
from pathlib import Path
from types import NoneType, UnionType
from typing import get_args, get_type_hints

import kpy
from kpy.config import BrokerConfig
from kpy.config_keys import (
    BROKER_KEYS,
    DYNAMIC_ONLY_KEYS,
    INTERNAL_KEYS,
    KPY_DEFAULTS,
    OTHER_KEYS,
    find,
    synonyms,
    without_listener,
)
from kpy.config_types import CLUSTER_WIDE, PER_BROKER, READ_ONLY, Type, to_text
from kpy.topic_config import BROKER_SYNONYMS

PYTHON_TYPES = {
    Type.BOOLEAN: bool,
    Type.STRING: str,
    Type.INT: int,
    Type.SHORT: int,
    Type.LONG: int,
    Type.DOUBLE: float,
    Type.LIST: tuple[str, ...],
    Type.CLASS: str,
    Type.PASSWORD: str,
}


def test_the_table_has_the_328_keys_of_apache_kafka_3_9_1():
    assert len(BROKER_KEYS) == 328
    assert Counter(key.update for key in BROKER_KEYS.values()) == {READ_ONLY: 239, CLUSTER_WIDE: 52, PER_BROKER: 37}
    assert BROKER_KEYS.keys() >= INTERNAL_KEYS


def test_every_default_is_valid_text_for_its_key():
    for key in BROKER_KEYS.values():
        for default in (key.default, KPY_DEFAULTS.get(key.name)):
            text = to_text(default)
            assert text is None or key.parse(text) == default, key.name


def test_every_key_says_in_one_line_what_it_is_for():
    for key in (*BROKER_KEYS.values(), *OTHER_KEYS.values()):
        assert key.doc.endswith("."), key.name
        assert "\n" not in key.doc, key.name


DERIVED = frozenset(
    {
        *("settings", "defaults", "cluster_overrides", "broker_overrides", "values", "origins", "warnings"),
        *("endpoints", "advertised_endpoints", "inter_broker_listener", "security_protocols", "data_dirs"),
    }
)


def test_declared_attributes_have_the_types_of_the_table():
    tables = BROKER_KEYS, DYNAMIC_ONLY_KEYS, OTHER_KEYS
    keys = {key.attribute: key for table in tables for key in table.values()}
    for attribute, hint in get_type_hints(BrokerConfig).items():
        if attribute in DERIVED:
            continue
        key = keys[attribute]
        nullable = isinstance(hint, UnionType) and NoneType in get_args(hint)
        assert nullable == (key.default is None), attribute
        assert (get_args(hint)[0] if nullable else hint) == PYTHON_TYPES[key.type], attribute


def test_declared_attributes_are_those_that_something_reads():
    """`kpy config print` says of the others that they have no effect, so the declarations have to be true."""
    package = Path(kpy.__file__).parent
    own = {*package.glob("*config*.py"), *(package / "wire").glob("*.py")}
    read = set(re.findall(r"\.([a-z_]+)", "".join(path.read_text() for path in {*package.rglob("*.py")} - own)))
    topic_defaults = {name.replace(".", "_") for names in BROKER_SYNONYMS.values() for name in names}
    assert set(BrokerConfig.__annotations__) - DERIVED - read - topic_defaults == set()


def test_a_listener_prefix_leads_to_the_key_it_sets():
    assert without_listener("listener.name.internal.max.connections") == "max.connections"
    assert without_listener("listener.name.internal.scram-sha-256.sasl.jaas.config") == "sasl.jaas.config"
    assert without_listener("max.connections") is None
    key = find("listener.name.internal.ssl.keystore.password")
    assert key is not None
    assert key.type is Type.PASSWORD


def test_synonyms_come_strongest_first():
    assert synonyms("log.retention.hours") == ("log.retention.ms", "log.retention.minutes", "log.retention.hours")
    assert synonyms("log.flush.interval.ms") == ("log.flush.interval.ms", "log.flush.scheduler.interval.ms")
    assert synonyms("log.flush.scheduler.interval.ms") == ("log.flush.scheduler.interval.ms",)
    assert synonyms("num.partitions") == ("num.partitions",)
