"""Every topic config that a log obeys reaches the logs of a running broker, by its own name and by its broker key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from log_broker import ask, create_topic, open_broker

from kpy.api.broker import Broker
from kpy.config_keys import BROKER_KEYS
from kpy.replication_quota import ALL_REPLICAS
from kpy.storage.log_config import LogConfig
from kpy.topic_config import BROKER_SYNONYMS
from kpy.wire import incremental_alter_configs
from kpy.wire.incremental_alter_configs import AlterableConfig, AlterConfigsResource, IncrementalAlterConfigsRequest

TOPIC, BROKER = 2, 4
VALUES: dict[str, tuple[str, Any]] = {
    "cleanup.policy": ("compact,delete", {"compact", "delete"}),
    "compression.type": ("zstd", "zstd"),
    "compression.gzip.level": ("7", 7),
    "compression.lz4.level": ("7", 7),
    "compression.zstd.level": ("7", 7),
    "delete.retention.ms": ("7", 7),
    "file.delete.delay.ms": ("7", 7),
    "flush.messages": ("7", 7),
    "flush.ms": ("7", 7),
    "follower.replication.throttled.replicas": ("0:1,1:2", {(0, 1), (1, 2)}),
    "index.interval.bytes": ("7", 7),
    "leader.replication.throttled.replicas": ("*", ALL_REPLICAS),
    "max.compaction.lag.ms": ("7", 7),
    "max.message.bytes": ("7", 7),
    "message.downconversion.enable": ("false", False),
    "message.timestamp.after.max.ms": ("7", 7),
    "message.timestamp.before.max.ms": ("7", 7),
    "message.timestamp.type": ("LogAppendTime", "LogAppendTime"),
    "min.cleanable.dirty.ratio": ("0.25", 0.25),
    "min.compaction.lag.ms": ("7", 7),
    "min.insync.replicas": ("7", 7),
    "preallocate": ("true", True),
    "retention.bytes": ("7", 7),
    "retention.ms": ("7", 7),
    "segment.bytes": ("77", 77),
    "segment.index.bytes": ("7", 7),
    "segment.jitter.ms": ("7", 7),
    "segment.ms": ("7", 7),
    "unclean.leader.election.enable": ("true", True),
}
DYNAMIC_SYNONYMS = [
    (name, synonym)
    for name in VALUES
    for synonym in BROKER_SYNONYMS.get(name, ())
    if BROKER_KEYS[synonym].update != "read-only" and not synonym.endswith((".minutes", ".hours"))
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with open_broker(tmp_path) as broker:
        create_topic(broker, "t")
        yield broker


def alter(broker: Broker, resource_type: int, name: str, key: str, operation: int, value: str | None) -> None:
    resource = AlterConfigsResource(resource_type, name, [AlterableConfig(key, operation, value)])
    (response,) = ask(broker, incremental_alter_configs, IncrementalAlterConfigsRequest([resource]), 1).responses
    assert response.error_code == 0, response.error_message


def in_log(broker: Broker, key: str) -> Any:
    return getattr(broker.replicas.partition("t", 0).log.config, key.replace(".", "_"))


def test_the_table_above_is_complete() -> None:
    fields = {name for name, field in LogConfig.__dataclass_fields__.items() if field.init}
    assert {name.replace(".", "_") for name in VALUES} == fields


@pytest.mark.parametrize("key", VALUES)
def test_topic_config_reaches_the_log_and_leaves_it_again(broker: Broker, key: str) -> None:
    text, value = VALUES[key]
    before = in_log(broker, key)
    assert before != value
    alter(broker, TOPIC, "t", key, 0, text)
    assert in_log(broker, key) == value
    alter(broker, TOPIC, "t", key, 1, None)
    assert in_log(broker, key) == before


@pytest.mark.parametrize(("key", "synonym"), DYNAMIC_SYNONYMS)
@pytest.mark.parametrize("name", ["", "1"])
def test_broker_default_reaches_the_log_and_leaves_it_again(broker: Broker, key: str, synonym: str, name: str) -> None:
    text, value = VALUES[key]
    before = in_log(broker, key)
    alter(broker, BROKER, name, synonym, 0, text)
    assert in_log(broker, key) == value
    alter(broker, BROKER, name, synonym, 1, None)
    assert in_log(broker, key) == before
