"""DescribeConfigs, AlterConfigs and IncrementalAlterConfigs. Compared with Apache Kafka 3.9.1."""

import pytest
from admin_broker import call, changes, create, make_broker

from kpy.api.broker import Broker
from kpy.errors import ErrorCode
from kpy.wire import alter_configs, describe_configs, incremental_alter_configs
from kpy.wire.alter_configs import AlterableConfig as Replacement
from kpy.wire.alter_configs import AlterConfigsRequest, AlterConfigsResource
from kpy.wire.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResult,
)
from kpy.wire.incremental_alter_configs import AlterableConfig as Change
from kpy.wire.incremental_alter_configs import AlterConfigsResource as ChangedResource
from kpy.wire.incremental_alter_configs import IncrementalAlterConfigsRequest

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS = 2, 4, 8, 16
SET, DELETE, APPEND, SUBTRACT = range(4)
FROM_TOPIC, DYNAMIC, DYNAMIC_DEFAULT, STATIC, DEFAULT = range(1, 6)

Answer = tuple[int, str | None]


@pytest.fixture
def broker() -> Broker:
    broker = make_broker()
    create(broker, "t", 1, {"retention.ms": "1000"})
    return broker


def describe(
    broker: Broker,
    resource_type: int,
    name: str,
    keys: list[str] | None = None,
    *,
    version: int = 4,
    synonyms: bool = False,
    documentation: bool = False,
) -> DescribeConfigsResult:
    request = DescribeConfigsRequest(
        resources=[DescribeConfigsResource(resource_type, name, keys)],
        include_synonyms=synonyms,
        include_documentation=documentation,
    )
    (result,) = call(broker, describe_configs, request, version).results
    assert (result.resource_type, result.resource_name) == (resource_type, name)
    return result


def described(
    broker: Broker, resource_type: int, name: str, *keys: str, synonyms: bool = False
) -> dict[str, DescribeConfigsResourceResult]:
    result = describe(broker, resource_type, name, list(keys) or None, synonyms=synonyms)
    assert (result.error_code, result.error_message) == (0, "")
    return {config.name: config for config in result.configs}


def replace_all(
    broker: Broker, *resources: tuple[int, str, dict[str, str | None]], version: int = 2, validate_only: bool = False
) -> list[Answer]:
    request = AlterConfigsRequest(
        resources=[
            AlterConfigsResource(kind, name, [Replacement(key, value) for key, value in configs.items()])
            for kind, name, configs in resources
        ],
        validate_only=validate_only,
    )
    responses = call(broker, alter_configs, request, version).responses
    assert [(answer.resource_type, answer.resource_name) for answer in responses] == [each[:2] for each in resources]
    return [(answer.error_code, answer.error_message) for answer in responses]


def change(
    broker: Broker,
    *resources: tuple[int, str, list[tuple[str, int, str | None]]],
    version: int = 1,
    validate_only: bool = False,
) -> list[Answer]:
    request = IncrementalAlterConfigsRequest(
        resources=[
            ChangedResource(kind, name, [Change(key, operation, value) for key, operation, value in configs])
            for kind, name, configs in resources
        ],
        validate_only=validate_only,
    )
    responses = call(broker, incremental_alter_configs, request, version).responses
    assert [(answer.resource_type, answer.resource_name) for answer in responses] == [each[:2] for each in resources]
    return [(answer.error_code, answer.error_message) for answer in responses]


def topic_configs(broker: Broker) -> dict[str, str]:
    return dict(broker.cluster.image.topics["t"].configs)


OK: Answer = (0, None)


@pytest.mark.parametrize("version", range(5))
def test_each_version_describes_a_topic(version: int, broker: Broker) -> None:
    result = describe(broker, TOPIC, "t", ["retention.ms", "segment.ms"], version=version)
    configs = {config.name: config for config in result.configs}
    retention, segment = configs["retention.ms"], configs["segment.ms"]
    assert (retention.value, segment.value) == ("1000", "604800000")
    if version == 0:
        assert (retention.is_default, segment.is_default) == (False, True)
    else:
        assert (retention.config_source, segment.config_source) == (FROM_TOPIC, DEFAULT)
    assert retention.config_type == (5 if version >= 3 else 0)
    assert not retention.read_only
    assert not retention.is_sensitive
    assert retention.synonyms == []
    assert retention.documentation == (None if version >= 3 else "")


@pytest.mark.parametrize("keys", [None, []])
def test_no_keys_mean_all(keys: list[str] | None, broker: Broker) -> None:
    assert len(describe(broker, TOPIC, "t", keys).configs) == 36


def test_unknown_keys_are_left_out(broker: Broker) -> None:
    assert list(described(broker, TOPIC, "t", "nope", "retention.ms")) == ["retention.ms"]


def test_synonyms_come_strongest_first(broker: Broker) -> None:
    configs = described(broker, TOPIC, "t", "cleanup.policy", "retention.ms", synonyms=True)
    policy = [(synonym.name, synonym.value, synonym.source) for synonym in configs["cleanup.policy"].synonyms]
    assert policy == [("log.cleanup.policy", "delete", DEFAULT)]
    retention = [(synonym.name, synonym.value, synonym.source) for synonym in configs["retention.ms"].synonyms]
    assert retention == [("retention.ms", "1000", FROM_TOPIC)]


def test_documentation_is_told_when_asked_for(broker: Broker) -> None:
    (config,) = describe(broker, TOPIC, "t", ["retention.ms"], documentation=True).configs
    assert config.documentation


@pytest.mark.parametrize(
    ("resource_type", "name", "code", "message"),
    [
        (TOPIC, "none", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (
            TOPIC,
            "b d",
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic name is invalid: 'b d' contains one or more characters other than ASCII alphanumerics,"
            " '.', '_' and '-'",
        ),
        (
            BROKER,
            "2",
            ErrorCode.INVALID_REQUEST,
            "Unexpected broker id, expected 1 or empty string, but received 2",
        ),
        (BROKER, "x", ErrorCode.INVALID_REQUEST, "Broker id must be an integer, but it is: x"),
        (BROKER_LOGGER, "", ErrorCode.INVALID_REQUEST, "Broker id must not be empty"),
        (BROKER_LOGGER, "2", ErrorCode.INVALID_REQUEST, "Unexpected broker id, expected 1 but received 2"),
        (
            CLIENT_METRICS,
            "g",
            ErrorCode.INVALID_REQUEST,
            "Config type client-metrics is only supported on KRaft clusters",
        ),
        (3, "g", ErrorCode.INVALID_REQUEST, "Unexpected resource type 3 for resource g"),
    ],
)
def test_what_cannot_be_described(resource_type: int, name: str, code: ErrorCode, message: str, broker: Broker) -> None:
    result = describe(broker, resource_type, name)
    assert (result.error_code, result.error_message, result.configs) == (code, message, [])


def test_the_broker_describes_itself(broker: Broker) -> None:
    configs = described(broker, BROKER, "1")
    assert len(configs) > 300
    assert (configs["broker.id"].value, configs["broker.id"].config_source) == ("1", STATIC)
    assert configs["broker.id"].read_only
    assert not configs["log.retention.ms"].read_only


def test_defaults_of_all_brokers_are_those_that_were_set(broker: Broker) -> None:
    assert described(broker, BROKER, "") == {}
    assert change(broker, (BROKER, "", [("log.cleaner.threads", SET, "2")])) == [OK]
    configs = described(broker, BROKER, "", synonyms=True)
    assert list(configs) == ["log.cleaner.threads"]
    threads = configs["log.cleaner.threads"]
    assert (threads.value, threads.config_source) == ("2", DYNAMIC_DEFAULT)
    assert [(synonym.value, synonym.source) for synonym in threads.synonyms] == [("2", DYNAMIC_DEFAULT)]


def test_dynamic_configs_of_brokers_reach_topics(broker: Broker) -> None:
    create(broker, "plain")
    answers = change(
        broker,
        (BROKER, "1", [("log.retention.ms", SET, "7777")]),
        (BROKER, "", [("log.retention.ms", SET, "6666")]),
    )
    assert answers == [OK, OK]
    retention = described(broker, TOPIC, "plain", "retention.ms", synonyms=True)["retention.ms"]
    assert (retention.value, retention.config_source) == ("7777", DYNAMIC)
    assert [(synonym.name, synonym.value, synonym.source) for synonym in retention.synonyms] == [
        ("log.retention.ms", "7777", DYNAMIC),
        ("log.retention.ms", "6666", DYNAMIC_DEFAULT),
        ("log.retention.hours", "168", DEFAULT),
    ]
    assert change(broker, (BROKER, "1", [("log.retention.ms", DELETE, None)])) == [OK]
    assert described(broker, TOPIC, "plain", "retention.ms")["retention.ms"].value == "6666"


@pytest.mark.parametrize("version", range(3))
def test_alter_replaces_everything(version: int, broker: Broker) -> None:
    assert replace_all(broker, (TOPIC, "t", {"segment.ms": "5"}), version=version) == [OK]
    assert topic_configs(broker) == {"segment.ms": "5"}
    assert replace_all(broker, (TOPIC, "t", {}), version=version) == [OK]
    assert topic_configs(broker) == {}


@pytest.mark.parametrize("version", range(2))
def test_incremental_alter_keeps_the_rest(version: int, broker: Broker) -> None:
    assert change(broker, (TOPIC, "t", [("segment.ms", SET, "5")]), version=version) == [OK]
    assert topic_configs(broker) == {"retention.ms": "1000", "segment.ms": "5"}
    assert change(broker, (TOPIC, "t", [("retention.ms", DELETE, None)]), version=version) == [OK]
    assert topic_configs(broker) == {"segment.ms": "5"}


def test_validate_only_changes_nothing(broker: Broker) -> None:
    before = broker.cluster.image
    resources = (TOPIC, "t", {}), (BROKER, "", {"log.cleaner.threads": "2"})
    assert replace_all(broker, *resources, validate_only=True) == [OK, OK]
    assert change(broker, (TOPIC, "t", [("retention.ms", SET, "5")]), validate_only=True) == [OK]
    assert broker.cluster.image is before


def test_one_bad_resource_does_not_stop_the_others(broker: Broker) -> None:
    answers = change(
        broker,
        (TOPIC, "none", [("retention.ms", SET, "5")]),
        (TOPIC, "t", [("retention.ms", SET, "5")]),
    )
    assert answers == [(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'none' does not exist."), OK]
    assert topic_configs(broker) == {"retention.ms": "5"}


REFUSALS: list[tuple[int, str, dict[str, str | None], ErrorCode, str]] = [
    (TOPIC, "none", {}, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "The topic 'none' does not exist."),
    (TOPIC, "", {}, ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed."),
    (TOPIC, "t", {"nope": "1"}, ErrorCode.INVALID_CONFIG, "Unknown topic config name: nope"),
    (
        TOPIC,
        "t",
        {"retention.ms": "-9"},
        ErrorCode.INVALID_CONFIG,
        "Invalid config value for resource ConfigResource(type=TOPIC, name='t'):"
        " Invalid value -9 for configuration retention.ms: Value must be at least -1",
    ),
    (
        TOPIC,
        "t",
        {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"},
        ErrorCode.INVALID_CONFIG,
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
    ),
    (TOPIC, "t", {"retention.ms": None}, ErrorCode.INVALID_REQUEST, "Null value not supported for : retention.ms"),
    (BROKER, "2", {}, ErrorCode.INVALID_REQUEST, "Unexpected broker id, expected 1, but received 2"),
    (BROKER, "x", {}, ErrorCode.INVALID_REQUEST, "Node id must be an integer, but it is: x"),
    (
        BROKER,
        "1",
        {"num.partitions": "3"},
        ErrorCode.INVALID_REQUEST,
        "Cannot update these configs dynamically: Set(num.partitions)",
    ),
    (
        BROKER,
        "1",
        {"log.retention.ms": "abc"},
        ErrorCode.INVALID_REQUEST,
        "Invalid value abc for configuration log.retention.ms: Not a number of type LONG",
    ),
    (
        BROKER,
        "",
        {"sasl.enabled.mechanisms": "PLAIN"},
        ErrorCode.INVALID_REQUEST,
        "Cannot update these configs at default cluster level, broker id must be specified:"
        " Set(sasl.enabled.mechanisms)",
    ),
    (3, "g", {}, ErrorCode.INVALID_REQUEST, "Unknown resource type 3"),
    (
        CLIENT_METRICS,
        "g",
        {"interval.ms": "1"},
        ErrorCode.INVALID_REQUEST,
        "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
    ),
]


@pytest.mark.parametrize(("resource_type", "name", "configs", "code", "message"), REFUSALS)
def test_both_ways_of_altering_refuse_alike(
    resource_type: int, name: str, configs: dict[str, str | None], code: ErrorCode, message: str, broker: Broker
) -> None:
    before = changes(broker)
    operations = [(key, SET, value) for key, value in configs.items()]
    assert replace_all(broker, (resource_type, name, configs)) == [(code, message)]
    assert change(broker, (resource_type, name, operations)) == [(code, message)]
    assert changes(broker) == before


def test_a_resource_named_twice_is_not_altered(broker: Broker) -> None:
    refused = (ErrorCode.INVALID_REQUEST, "Each resource must appear at most once.")
    before = changes(broker)
    assert replace_all(broker, (TOPIC, "t", {}), (TOPIC, "t", {})) == [refused, refused]
    assert change(broker, (TOPIC, "t", []), (TOPIC, "t", [])) == [refused, refused]
    assert changes(broker) == before


def test_a_key_named_twice_is_not_altered(broker: Broker) -> None:
    refused = (ErrorCode.INVALID_REQUEST, "Error due to duplicate config keys")
    twice = [Replacement("retention.ms", "1"), Replacement("retention.ms", "2")]
    request = AlterConfigsRequest(resources=[AlterConfigsResource(TOPIC, "t", twice)])
    (answer,) = call(broker, alter_configs, request, 2).responses
    assert (answer.error_code, answer.error_message) == refused
    assert change(broker, (TOPIC, "t", [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)])) == [refused]


def test_loggers_are_not_for_the_older_api(broker: Broker) -> None:
    expected = (ErrorCode.INVALID_REQUEST, "Unknown resource type 8")
    assert replace_all(broker, (BROKER_LOGGER, "1", {"kpy": "INFO"})) == [expected]


def test_a_custom_broker_config_is_kept(broker: Broker) -> None:
    assert change(broker, (BROKER, "1", [("nosuch.thing", SET, "1")])) == [OK]
    assert broker.cluster.image.broker_configs == {"1": {"nosuch.thing": "1"}}


def test_the_bound_on_configs(broker: Broker) -> None:
    """The largest that are taken still fit into their node, however JSON has to write them."""
    value = "\x01" * (128 * 1024 // 8 - len("key0"))
    most = [(f"key{index}", SET, value) for index in range(8)]
    assert change(broker, (BROKER, "", most)) == [OK]
    refused = (ErrorCode.INVALID_CONFIG, "Configs of 131073 bytes are larger than 131072.")
    assert change(broker, (BROKER, "", [("key0", SET, value + "x")])) == [refused]
    too_many = {name: value for name, _, value in most} | {"key0": value + "x"}
    assert replace_all(broker, (BROKER, "", too_many)) == [refused]
    assert len(described(broker, BROKER, "")) == 8


def test_a_list_does_not_outgrow_what_a_response_can_carry(broker: Broker) -> None:
    name = "leader.replication.throttled.replicas"
    half = ",".join(f"{partition}:1" for partition in range(3000))
    assert change(broker, (TOPIC, "t", [(name, SET, half)])) == [OK]
    other = ",".join(f"{partition}:2" for partition in range(3000))
    ((code, message),) = change(broker, (TOPIC, "t", [(name, APPEND, other)]))
    assert (code, message) == (ErrorCode.INVALID_CONFIG, f"The value of {name} has 39779 bytes, more than 32767.")
    assert topic_configs(broker)[name] == half


def test_a_broker_id_may_have_leading_zeros(broker: Broker) -> None:
    assert change(broker, (BROKER, "01", [("log.cleaner.threads", SET, "2")])) == [OK]
    assert replace_all(broker, (BROKER, "001", {"log.cleaner.threads": "3"})) == [OK]
    assert broker.cluster.image.broker_configs == {"1": {"log.cleaner.threads": "3"}}


def test_lists_grow_and_shrink(broker: Broker) -> None:
    assert change(broker, (TOPIC, "t", [("cleanup.policy", APPEND, "compact")])) == [OK]
    assert topic_configs(broker)["cleanup.policy"] == "delete,compact"
    assert change(broker, (TOPIC, "t", [("cleanup.policy", APPEND, "compact,delete")])) == [OK]
    assert topic_configs(broker)["cleanup.policy"] == "delete,compact"
    assert change(broker, (TOPIC, "t", [("cleanup.policy", SUBTRACT, "delete")])) == [OK]
    assert topic_configs(broker)["cleanup.policy"] == "compact"
    assert change(broker, (TOPIC, "t", [("cleanup.policy", SUBTRACT, "compact,delete")])) == [OK]
    assert topic_configs(broker)["cleanup.policy"] == ""
    assert change(broker, (BROKER, "", [("log.cleanup.policy", APPEND, "compact")])) == [OK]
    assert broker.cluster.image.broker_configs[""] == {"log.cleanup.policy": "delete,compact"}


@pytest.mark.parametrize(
    ("operation", "code", "message"),
    [
        (
            ("retention.ms", APPEND, "4"),
            ErrorCode.INVALID_CONFIG,
            "Config value append is not allowed for config key: retention.ms",
        ),
        (
            ("retention.ms", SUBTRACT, "4"),
            ErrorCode.INVALID_CONFIG,
            "Config value subtract is not allowed for config key: retention.ms",
        ),
        (("nope", APPEND, "4"), ErrorCode.INVALID_CONFIG, "Unknown config name: nope"),
        (("retention.ms", 9, "4"), ErrorCode.INVALID_REQUEST, "Unknown operations type 9"),
        (
            ("cleanup.policy", APPEND, "foo"),
            ErrorCode.INVALID_CONFIG,
            "Invalid config value for resource ConfigResource(type=TOPIC, name='t'):"
            " Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        ),
    ],
)
def test_operations_that_are_refused(
    operation: tuple[str, int, str], code: ErrorCode, message: str, broker: Broker
) -> None:
    assert change(broker, (TOPIC, "t", [operation])) == [(code, message)]
    assert topic_configs(broker) == {"retention.ms": "1000"}


def test_unsetting_what_is_not_set_succeeds(broker: Broker) -> None:
    assert change(broker, (TOPIC, "t", [("nope", DELETE, None)])) == [OK]
    assert topic_configs(broker) == {"retention.ms": "1000"}
