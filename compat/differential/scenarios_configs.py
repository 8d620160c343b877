"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44): what is set, shown, and refused."""

from typing import Any

from compat.differential.scenario import Ask, Scenario
from compat.differential.steps import ALTER_CONFIGS, DESCRIBE_CONFIGS, INCREMENTAL_ALTER_CONFIGS, create
from kpy.wire import alter_configs, incremental_alter_configs
from kpy.wire.describe_configs import DescribeConfigsRequest, DescribeConfigsResource

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS = 2, 4, 8, 16
SET, DELETE, APPEND, SUBTRACT = range(4)
BROKER_KEYS = [
    "log.retention.ms",
    "log.retention.hours",
    "num.partitions",
    "min.insync.replicas",
    "log.cleanup.policy",
    "compression.type",
    "message.max.bytes",
    "log.segment.bytes",
    "auto.create.topics.enable",
    "broker.id",
    "default.replication.factor",
    "background.threads",
    "log.cleaner.threads",
    "no.such.config",
]


def describe(kind: int, name: str, *keys: str, synonyms: bool = True, all_keys: bool = False) -> Ask:
    wanted = None if all_keys else list(keys)
    return Ask(DescribeConfigsRequest([DescribeConfigsResource(kind, name, wanted)], synonyms))


def until_set(key: str, value: str) -> Ask:
    """Waits until a change to {t} is seen, which Apache Kafka makes known behind its answer."""

    def is_set(answer: Any) -> bool:
        return [config.value for config in answer.results[0].configs] == [value]

    return describe(TOPIC, "{t}", key)._replace(until=is_set)


def alter(kind: int, name: str, *settings: tuple[str, str | None], validate_only: bool = False) -> Ask:
    configs = [alter_configs.AlterableConfig(key, value) for key, value in settings]
    return Ask(
        alter_configs.AlterConfigsRequest([alter_configs.AlterConfigsResource(kind, name, configs)], validate_only)
    )


def change(kind: int, name: str, *changes: tuple[str, int, str | None], validate_only: bool = False) -> Ask:
    configs = [incremental_alter_configs.AlterableConfig(*each) for each in changes]
    resource = incremental_alter_configs.AlterConfigsResource(kind, name, configs)
    return Ask(incremental_alter_configs.IncrementalAlterConfigsRequest([resource], validate_only))


WRONG_VALUES: list[tuple[str, str | None]] = [
    ("retention.ms", "-2"),
    ("retention.ms", "x"),
    ("retention.ms", None),
    ("retention.ms", ""),
    ("no.such.config", "1"),
    ("cleanup.policy", "compact,wrong"),
    ("compression.type", "brotli"),
    ("min.insync.replicas", "0"),
    ("segment.bytes", "1"),
    ("max.message.bytes", "-1"),
    ("message.timestamp.type", "x"),
    ("min.cleanable.dirty.ratio", "2"),
    ("compression.gzip.level", "77"),
    ("compression.zstd.level", "99"),
    ("preallocate", "yes"),
    ("follower.replication.throttled.replicas", "abc"),
    ("remote.storage.enable", "true"),
]
WRONG_CHANGES: list[tuple[str, int, str | None]] = [
    *((key, SET, value) for key, value in WRONG_VALUES),
    ("retention.ms", APPEND, "5"),
    ("retention.ms", SUBTRACT, "5"),
    ("no.such.config", DELETE, None),
    ("no.such.config", APPEND, "1"),
    ("cleanup.policy", APPEND, "wrong"),
    ("cleanup.policy", APPEND, None),
    ("cleanup.policy", SUBTRACT, "delete"),
    ("retention.ms", 9, "5"),
    ("retention.ms", -1, "5"),
    ("retention.ms", DELETE, "5"),
]

SCENARIOS = [
    Scenario(
        "describe configs: topic",
        DESCRIBE_CONFIGS,
        [
            create("t", retention_ms="5", cleanup_policy="compact"),
            describe(TOPIC, "{t}", all_keys=True),
            describe(TOPIC, "{t}", synonyms=False, all_keys=True),
            describe(TOPIC, "{t}"),
            describe(TOPIC, "{t}", "retention.ms", "no.such.config", "cleanup.policy", "retention.ms"),
        ],
    ),
    Scenario(
        "describe configs: broker",
        DESCRIBE_CONFIGS,
        [describe(BROKER, "1", *BROKER_KEYS), describe(BROKER, "", *BROKER_KEYS), describe(BROKER, "", all_keys=True)],
    ),
    Scenario(
        "describe configs: wrong resources",
        DESCRIBE_CONFIGS,
        [
            describe(kind, name, all_keys=True)
            for kind, name in [
                (TOPIC, "{nothing}"),
                (TOPIC, ""),
                (TOPIC, "in valid"),
                (BROKER, "2"),
                (BROKER, "x"),
                (BROKER_LOGGER, "2"),
                (BROKER_LOGGER, ""),
                (BROKER_LOGGER, "x"),
            ]
        ],
    ),
    Scenario("describe configs: client metrics", DESCRIBE_CONFIGS, [describe(CLIENT_METRICS, "x", all_keys=True)]),
    Scenario(
        "describe configs: unknown types",
        DESCRIBE_CONFIGS,
        [describe(kind, "x", all_keys=True) for kind in (0, 1, 3, 5, 127)],
    ),
    Scenario("describe configs: nothing", DESCRIBE_CONFIGS, [Ask(DescribeConfigsRequest([]))]),
    Scenario(
        "alter configs: topic",
        ALTER_CONFIGS,
        [
            create("t", retention_ms="5", cleanup_policy="compact"),
            alter(TOPIC, "{t}", ("retention.ms", "7"), validate_only=True),
            alter(TOPIC, "{t}", ("segment.bytes", "2000000")),
            until_set("segment.bytes", "2000000"),
            describe(TOPIC, "{t}", all_keys=True),
            alter(TOPIC, "{t}"),
        ],
    ),
    Scenario(
        "alter configs: wrong values",
        ALTER_CONFIGS,
        [create("t"), *(alter(TOPIC, "{t}", setting) for setting in WRONG_VALUES)],
    ),
    Scenario(
        "alter configs: wrong requests",
        ALTER_CONFIGS,
        [
            create("t"),
            alter(TOPIC, "{nothing}", ("retention.ms", "5")),
            alter(TOPIC, "", ("retention.ms", "5")),
            alter(TOPIC, "in valid", ("retention.ms", "5")),
            alter(TOPIC, "{t}", ("retention.ms", "5"), ("retention.ms", "6")),
            alter(BROKER, "2", ("background.threads", "5")),
            alter(BROKER, "x", ("background.threads", "5")),
            alter(BROKER, "1", ("broker.id", "5")),
            alter(BROKER, "1", ("background.threads", "x")),
            alter(BROKER, "", ("listeners", "x")),
            alter(BROKER_LOGGER, "1", ("root", "INFO")),
            alter(0, "x", ("a", "b")),
            alter(CLIENT_METRICS, "x", ("a", "b")),
            Ask(alter_configs.AlterConfigsRequest([])),
        ],
    ),
    Scenario(
        "incremental alter configs: topic",
        INCREMENTAL_ALTER_CONFIGS,
        [
            create("t", retention_ms="5"),
            change(TOPIC, "{t}", ("cleanup.policy", APPEND, "compact"), ("retention.ms", DELETE, None)),
            until_set("cleanup.policy", "delete,compact"),
            describe(TOPIC, "{t}", all_keys=True),
            change(TOPIC, "{t}", ("cleanup.policy", SUBTRACT, "delete"), ("segment.bytes", SET, "2000000")),
            until_set("cleanup.policy", "compact"),
            describe(TOPIC, "{t}", all_keys=True),
            change(TOPIC, "{t}", ("cleanup.policy", APPEND, "compact")),
            change(TOPIC, "{t}", ("retention.ms", SET, "9"), validate_only=True),
            change(TOPIC, "{t}"),
        ],
    ),
    Scenario(
        "incremental alter configs: wrong changes",
        INCREMENTAL_ALTER_CONFIGS,
        [create("t"), *(change(TOPIC, "{t}", each) for each in WRONG_CHANGES)],
    ),
    Scenario(
        "incremental alter configs: wrong requests",
        INCREMENTAL_ALTER_CONFIGS,
        [
            create("t"),
            change(TOPIC, "{nothing}", ("retention.ms", SET, "5")),
            change(TOPIC, "", ("retention.ms", SET, "5")),
            change(TOPIC, "in valid", ("retention.ms", SET, "5")),
            change(TOPIC, "{t}", ("retention.ms", SET, "5"), ("retention.ms", SET, "6")),
            change(TOPIC, "{t}", ("retention.ms", SET, "5"), ("retention.ms", DELETE, None)),
            change(BROKER, "2", ("background.threads", SET, "5")),
            change(BROKER, "x", ("background.threads", SET, "5")),
            change(BROKER, "1", ("broker.id", SET, "5")),
            change(BROKER, "1", ("background.threads", SET, "x")),
            change(BROKER, "1", ("no.such.config", SET, "x"), validate_only=True),
            change(BROKER_LOGGER, "1", ("no.such.logger", SET, "INFO")),
            change(BROKER_LOGGER, "1", ("root", SET, "LOUD")),
            change(BROKER_LOGGER, "1", ("root", APPEND, "INFO")),
            change(BROKER_LOGGER, "1", ("root", DELETE, None)),
            change(BROKER_LOGGER, "2", ("root", SET, "INFO")),
            change(0, "x", ("a", SET, "b")),
            change(CLIENT_METRICS, "x", ("interval.ms", SET, "1000")),
            Ask(incremental_alter_configs.IncrementalAlterConfigsRequest([])),
        ],
    ),
]
