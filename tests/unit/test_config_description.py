"""What DescribeConfigs shows is what Apache Kafka 3.9.1 shows: tests/golden/describe_configs.tsv is its own answer."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from kpy.config import BrokerConfig
from kpy.config_description import (
    ConfigEntry,
    Source,
    Synonym,
    describe_broker,
    describe_broker_defaults,
    describe_topic,
)
from kpy.config_keys import BROKER_KEYS
from kpy.config_sources import read_properties_file
from kpy.config_types import Type

GOLDEN = Path(__file__).parent.parent / "golden"
TYPE_NAMES = {0: "UNKNOWN"} | {of_type.value: of_type.name for of_type in Type}

# Where a broker that runs on a machine of its own has its own values.
DIFFERENT_EVERYWHERE = ("zookeeper.connect", "log.dirs")


def golden_lines(resource: str) -> list[str]:
    lines = (GOLDEN / "describe_configs.tsv").read_text().splitlines()
    return [line.removeprefix(resource + "\t") for line in lines if line.startswith(resource + "\t")]


def as_lines(entries: Iterable[ConfigEntry]) -> list[str]:
    def java(value: str | bool | None) -> str:
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else value

    def line(entry: ConfigEntry) -> str:
        synonyms = "".join(f"{name}={java(value)}@{source.name};" for name, value, source in entry.synonyms)
        columns = (entry.value, entry.source.name, TYPE_NAMES[entry.type], entry.read_only, entry.sensitive, synonyms)
        return "\t".join((entry.name, *map(java, columns)))

    return [line(entry) for entry in sorted(entries) if entry.name not in DIFFERENT_EVERYWHERE]


@pytest.fixture(scope="module")
def broker() -> BrokerConfig:
    """The broker that gave the golden answer, with the dynamic configs of DescribeConfigs.java."""
    apache_defaults = {name: key.default for name, key in BROKER_KEYS.items()}
    settings = read_properties_file(GOLDEN / "describe_configs.properties")
    for_all = {"log.cleaner.threads": "3", "log.segment.bytes": "123456", "log.retention.ms": "5000", "foo.bar": "1"}
    return BrokerConfig(settings, apache_defaults).with_overrides(
        for_all, {"log.cleaner.threads": "2", "log.retention.bytes": "777"}
    )


def test_a_broker_is_described_as_apache_kafka_describes_it(broker: BrokerConfig):
    assert as_lines(describe_broker(broker)) == golden_lines("BROKER/1")


def test_the_configs_of_all_brokers_are_described_as_apache_kafka_describes_them(broker: BrokerConfig):
    assert as_lines(describe_broker_defaults(broker)) == golden_lines("BROKER/")


def test_a_topic_is_described_as_apache_kafka_describes_it(broker: BrokerConfig):
    overrides = {"segment.bytes": "99999", "cleanup.policy": "compact", "min.compaction.lag.ms": "5000"}
    assert as_lines(describe_topic(overrides, broker)) == golden_lines("TOPIC/t")


def test_only_the_names_asked_for_are_described_and_unknown_ones_are_left_out(broker: BrokerConfig):
    names = ["num.partitions", "no.such.key"]
    assert [entry.name for entry in describe_broker(broker, names)] == ["num.partitions"]
    assert [entry.name for entry in describe_topic({}, broker, ["segment.ms", "x"])] == ["segment.ms"]
    assert [entry.name for entry in describe_broker_defaults(broker, ["foo.bar", "num.partitions"])] == ["foo.bar"]


def test_no_names_stands_for_all_of_them(broker: BrokerConfig):
    assert len(describe_topic({}, broker, [])) == 36


def test_a_password_is_never_shown():
    config = BrokerConfig.of({"ssl.key.password": "secret", "listener.name.a.b.sasl.jaas.config": "secret"})
    for entry in describe_broker(config, ["ssl.key.password", "listener.name.a.b.sasl.jaas.config"]):
        assert entry.sensitive
        assert entry.value is None
        assert "secret" not in str(entry)


def test_kpys_own_defaults_are_shown_as_defaults():
    [entry] = describe_broker(BrokerConfig.of({}), ["group.initial.rebalance.delay.ms"])
    assert (entry.value, entry.source) == ("0", Source.DEFAULT)
    assert entry.synonyms == [Synonym("group.initial.rebalance.delay.ms", "0", Source.DEFAULT)]


def test_every_known_config_has_documentation(broker: BrokerConfig):
    assert all(entry.documentation for entry in describe_topic({}, broker))
    assert all(entry.documentation for entry in describe_broker(broker) if entry.type != 0)
