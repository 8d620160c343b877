"""Topic configs: their defaults come from the broker, and their checks speak Apache Kafka's words."""

import pytest

from kpy.config import BrokerConfig
from kpy.config_keys import BROKER_KEYS
from kpy.config_types import MAX_LONG, to_text
from kpy.errors import ApiError, ErrorCode
from kpy.storage.log_config import LogConfig
from kpy.topic_config import BROKER_SYNONYMS, TOPIC_KEYS, topic_config, topic_values, validate_topic_configs

DEFAULTS = BrokerConfig.of({})


def test_the_table_has_the_36_keys_of_apache_kafka_3_9_1():
    assert len(TOPIC_KEYS) == 36
    assert TOPIC_KEYS.keys() > BROKER_SYNONYMS.keys()
    assert BROKER_KEYS.keys() >= {name for names in BROKER_SYNONYMS.values() for name in names}


def test_every_default_is_valid_text_for_its_key():
    for key in TOPIC_KEYS.values():
        assert key.parse(to_text(key.default) or "") == key.default, key.name


def test_without_any_settings_a_topic_has_kafkas_defaults():
    assert topic_config({}, DEFAULTS) == LogConfig()
    assert topic_values({}, DEFAULTS) == {name: key.default for name, key in TOPIC_KEYS.items()}


@pytest.mark.parametrize(
    ("broker", "retention_ms"),
    [
        ({"log.retention.hours": "2"}, 7_200_000),
        ({"log.retention.hours": "2", "log.retention.minutes": "3"}, 180_000),
        ({"log.retention.hours": "2", "log.retention.minutes": "3", "log.retention.ms": "4"}, 4),
        ({"log.retention.hours": "-1"}, -1),
        ({"log.retention.ms": "-5"}, -1),
    ],
)
def test_the_finest_unit_of_the_brokers_retention_wins(broker: dict[str, str], retention_ms: int):
    assert topic_config({}, BrokerConfig.of(broker)).retention_ms == retention_ms


def test_a_topics_own_config_wins_over_the_brokers():
    broker = BrokerConfig.of({"log.segment.bytes": "100", "log.cleanup.policy": "compact"})
    config = topic_config({"segment.bytes": "200", "cleanup.policy": "compact,delete"}, broker)
    assert config.segment_bytes == 200
    assert config.cleanup_policy == {"compact", "delete"}
    assert topic_config({}, broker).cleanup_policy == {"compact"}


def test_the_older_timestamp_bound_counts_where_the_newer_ones_are_not_set():
    broker = BrokerConfig.of({"log.message.timestamp.difference.max.ms": "10"})
    config = topic_config({"message.timestamp.after.max.ms": "5"}, broker)
    assert (config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms) == (10, 5)
    config = topic_config({"message.timestamp.difference.max.ms": "20"}, DEFAULTS)
    assert (config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms) == (20, 20)
    assert topic_config({}, DEFAULTS).message_timestamp_before_max_ms == MAX_LONG


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"x.y": "1"}, "Unknown topic config name: x.y"),
        ({"retention.ms": None, "segment.ms": None},
         "Null value not supported for topic configs: retention.ms,segment.ms"),
        ({"retention.ms": "-9"}, "Invalid value -9 for configuration retention.ms: Value must be at least -1"),
        ({"retention.ms": "abc"}, "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
        ({"cleanup.policy": "delete,foo"},
         "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"),
        ({"min.cleanable.dirty.ratio": "2"},
         "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"),
        ({"preallocate": "yes"},
         "Invalid value yes for configuration preallocate: Expected value to be either true or false"),
        ({"leader.replication.throttled.replicas": "a:b"},
         "Invalid value [a:b] for configuration leader.replication.throttled.replicas: "
         "leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: "
         "[partitionId]:[brokerId],[partitionId]:[brokerId],..."),
        ({"min.compaction.lag.ms": "6", "max.compaction.lag.ms": "5"},
         "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)"),
        ({"remote.storage.enable": "true"},
         "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."),
    ],
)  # fmt: skip
def test_invalid_topic_configs_are_refused_in_kafkas_words(overrides: dict[str, str | None], message: str):
    with pytest.raises(ApiError) as caught:
        validate_topic_configs(overrides, DEFAULTS)
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_CONFIG, message)


def test_the_compaction_lags_are_compared_with_the_brokers_defaults():
    broker = BrokerConfig.of({"log.cleaner.max.compaction.lag.ms": "100"})
    validate_topic_configs({"min.compaction.lag.ms": "100"}, broker)
    with pytest.raises(ApiError, match="conflict topic config setting"):
        validate_topic_configs({"min.compaction.lag.ms": "101"}, broker)


def test_valid_topic_configs_pass():
    validate_topic_configs({name: to_text(key.default) for name, key in TOPIC_KEYS.items()}, DEFAULTS)
