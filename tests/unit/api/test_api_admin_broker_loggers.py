"""Log levels as configs of resource type BROKER_LOGGER (KIP-412). Compared with Apache Kafka 3.9.1."""

import logging
from collections.abc import Iterator

import pytest
from admin_broker import call, make_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.wire import describe_configs, incremental_alter_configs
from kpy.wire.describe_configs import DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult
from kpy.wire.incremental_alter_configs import AlterableConfig, AlterConfigsResource, IncrementalAlterConfigsRequest

BROKER_LOGGER = 8
DYNAMIC_BROKER_LOGGER = 6
SET, DELETE, APPEND = range(3)
NAME = "kpy.tests.admin"


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    """A logger whose parents' levels are known and come back after the test."""
    parents = [logging.getLogger(name) for name in (None, "kpy", "kpy.tests")]
    before = [parent.level for parent in parents]
    logger = logging.getLogger(NAME)
    logging.getLogger().setLevel(logging.WARNING)
    for changed in (*parents[1:], logger):
        changed.setLevel(logging.NOTSET)
    yield logger
    for parent, level in zip(parents, before, strict=True):
        parent.setLevel(level)


@pytest.fixture
def broker() -> Broker:
    return make_broker()


def describe(broker: Broker, *keys: str) -> dict[str, DescribeConfigsResourceResult]:
    request = DescribeConfigsRequest(resources=[DescribeConfigsResource(BROKER_LOGGER, "1", list(keys))])
    (result,) = call(broker, describe_configs, request, 4).results
    return {config.name: config for config in result.configs}


def change(
    broker: Broker, *changes: tuple[str, int, str], name: str = "1", validate_only: bool = False
) -> tuple[int, str | None]:
    resource = AlterConfigsResource(BROKER_LOGGER, name, [AlterableConfig(*change) for change in changes])
    request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)
    (answer,) = call(broker, incremental_alter_configs, request, 1).responses
    return answer.error_code, answer.error_message


def test_loggers_are_described_with_the_level_in_force(broker: Broker, logger: logging.Logger) -> None:
    everything = describe(broker)
    assert next(iter(everything)) == "root"
    described = everything[NAME]
    assert (described.value, described.config_source) == ("WARN", DYNAMIC_BROKER_LOGGER)
    assert (described.read_only, described.is_sensitive, described.synonyms) == (False, False, [])
    logger.setLevel(logging.DEBUG)
    assert list(describe(broker, NAME, "nope")) == [NAME]
    assert describe(broker, NAME)[NAME].value == "DEBUG"


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (1, "TRACE"),
        (5, "TRACE"),
        (10, "DEBUG"),
        (15, "INFO"),
        (20, "INFO"),
        (40, "ERROR"),
        (50, "FATAL"),
        (99, "FATAL"),
    ],
)
def test_levels_between_have_the_next_name(level: int, name: str, broker: Broker, logger: logging.Logger) -> None:
    logger.setLevel(level)
    assert describe(broker, NAME)[NAME].value == name


@pytest.mark.parametrize("level", ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"])
def test_levels_are_set_and_read_back(level: str, broker: Broker) -> None:
    assert change(broker, (NAME, SET, level)) == (0, None)
    assert describe(broker, NAME)[NAME].value == level


def test_an_unset_level_is_the_parents(broker: Broker) -> None:
    change(broker, (NAME, SET, "DEBUG"), ("root", SET, "ERROR"))
    assert change(broker, (NAME, DELETE, "")) == (0, None)
    assert describe(broker, NAME, "root")[NAME].value == "ERROR"


def test_validate_only_changes_nothing(broker: Broker, logger: logging.Logger) -> None:
    assert change(broker, (NAME, SET, "DEBUG"), validate_only=True) == (0, None)
    assert logger.level == logging.NOTSET


def test_one_wrong_level_changes_none(broker: Broker, logger: logging.Logger) -> None:
    code, _ = change(broker, (NAME, SET, "DEBUG"), ("root", SET, "LOUD"))
    assert code == ErrorCode.INVALID_CONFIG
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        (
            (NAME, SET, "LOUD"),
            ErrorCode.INVALID_CONFIG,
            f"Cannot set the log level of {NAME} to LOUD as it is not a supported log level."
            " Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN",
        ),
        (
            (NAME, APPEND, "INFO"),
            ErrorCode.INVALID_REQUEST,
            "APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
        ((NAME, 9, "INFO"), ErrorCode.INVALID_REQUEST, "Unknown operations type 9"),
        (("nosuchlogger", SET, "INFO"), ErrorCode.INVALID_CONFIG, "Logger nosuchlogger does not exist!"),
        (
            ("root", DELETE, ""),
            ErrorCode.INVALID_REQUEST,
            "Removing the log level of the root logger is not allowed",
        ),
    ],
)
def test_changes_that_are_refused(
    operation: tuple[str, int, str], code: ErrorCode, message: str, broker: Broker
) -> None:
    assert change(broker, operation) == (code, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2", "Unexpected broker id, expected 1, but received 2"),
        ("", "Node id must be an integer, but it is: "),
    ],
)
def test_loggers_of_other_brokers_are_refused(name: str, message: str, broker: Broker) -> None:
    assert change(broker, (NAME, SET, "INFO"), name=name) == (ErrorCode.INVALID_REQUEST, message)
