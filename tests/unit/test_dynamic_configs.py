"""Dynamic configs as somebody has written them into the metadata, past the checks of a broker."""

import pytest

from kpy.config import BrokerConfig
from kpy.dynamic_configs import DynamicConfigs
from kpy.metadata.image import MetadataImage


def image(for_all: dict[str, str], for_this: dict[str, str] | None = None) -> MetadataImage:
    return MetadataImage("c", 1, {}, {}, {}, {"": for_all, "1": for_this or {}})


def test_what_is_not_valid_is_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    configs = DynamicConfigs(BrokerConfig.of({}))
    bad = image({"log.retention.ms": "long", "listeners": "PLAINTEXT://h:1", "log.segment.bytes": "5000"})
    assert configs.follow(bad)
    assert not configs.follow(bad)
    assert configs.current.values["log.segment.bytes"] == 5000
    assert configs.current.values["log.retention.ms"] is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "dynamic configs of all brokers are not valid and have no effect: listeners, log.retention.ms"


def test_what_does_not_fit_together_leaves_the_configs_of_before(caplog: pytest.LogCaptureFixture) -> None:
    configs = DynamicConfigs(BrokerConfig.of({}))
    configs.follow(image({"log.segment.bytes": "5000"}))
    refused = image({}, {"log.cleaner.dedupe.buffer.size": "1000"})
    assert not configs.follow(refused)
    assert not configs.follow(refused)
    assert configs.current.values["log.segment.bytes"] == 5000
    (said,) = [record.getMessage() for record in caplog.records]
    assert "do not fit together" in said
    assert configs.follow(image({}))
    assert configs.current.broker_overrides == {}
