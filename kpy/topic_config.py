"""The configs of topics: all 36 of Apache Kafka 3.9.1, the broker keys their defaults come from, and their checks.

Apache Kafka: LogConfig, TopicConfig and ServerTopicConfigSynonyms.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from kpy.config import BrokerConfig, kafka_message
from kpy.config_keys import (
    BOOLEAN,
    COMPRESSION_TYPE,
    DOUBLE,
    INT,
    LIST,
    LONG,
    STRING,
    TIMESTAMP_TYPE,
)
from kpy.config_types import (
    MAX_LONG,
    ConfigError,
    Key,
    Value,
    anything,
    at_least,
    between,
    each_of,
    gzip_level,
    kafka_version,
    throttled_replicas,
)
from kpy.errors import ApiError, ErrorCode
from kpy.replication_quota import parse_throttled_replicas
from kpy.storage.log_config import LogConfig

TOPIC: Final = "topic"
"""The update mode of every topic config: dynamic, per topic."""

# fmt: off
_TOPIC_KEYS: Final[tuple[Key, ...]] = (
    Key("segment.bytes", INT, 1_073_741_824, at_least(14), TOPIC,
        "Segment size at which a new one begins."),
    Key("segment.ms", LONG, 604_800_000, at_least(1), TOPIC,
        "Segment age at which a new one begins."),
    Key("segment.jitter.ms", LONG, 0, at_least(0), TOPIC,
        "Most randomness taken off that age, so that segments do not roll all at once."),
    Key("segment.index.bytes", INT, 10_485_760, at_least(4), TOPIC,
        "Size limit of an offset index; a full index begins a new segment."),
    Key("flush.messages", LONG, MAX_LONG, at_least(1), TOPIC,
        "Records after which the log is forced to disk, before the last is acknowledged; 1 is every record."),
    Key("flush.ms", LONG, MAX_LONG, at_least(0), TOPIC,
        "Age of unflushed records at which the log is forced to disk; nobody waits for that."),
    Key("retention.bytes", LONG, -1, anything, TOPIC,
        "Size of a partition beyond which its oldest segments are deleted; -1 is no limit."),
    Key("retention.ms", LONG, 604_800_000, at_least(-1), TOPIC,
        "Age at which segments are deleted; -1 keeps them."),
    Key("max.message.bytes", INT, 1_048_588, at_least(0), TOPIC,
        "Largest record batch, header included."),
    Key("index.interval.bytes", INT, 4096, at_least(0), TOPIC,
        "Bytes of records between two index entries."),
    Key("delete.retention.ms", LONG, 86_400_000, at_least(0), TOPIC,
        "How long tombstones and transaction markers stay after compaction."),
    Key("min.compaction.lag.ms", LONG, 0, at_least(0), TOPIC,
        "Records younger than this are not compacted."),
    Key("max.compaction.lag.ms", LONG, MAX_LONG, at_least(1), TOPIC,
        "Records older than this are compacted even if little else is."),
    Key("file.delete.delay.ms", LONG, 60_000, at_least(0), TOPIC,
        "How long a deleted segment's files linger, for readers that still use them."),
    Key("min.cleanable.dirty.ratio", DOUBLE, 0.5, between(0, 1), TOPIC,
        "Share of the log that must be uncompacted before it is compacted."),
    Key("cleanup.policy", LIST, ("delete",), each_of("compact", "delete"), TOPIC,
        "What happens to old segments: delete, compact, or both."),
    Key("unclean.leader.election.enable", BOOLEAN, False, anything, TOPIC,
        "Let a replica that may miss committed records lead when no other is left."),
    Key("min.insync.replicas", INT, 1, at_least(1), TOPIC,
        "In-sync replicas that a write with acks=all needs."),
    Key("compression.type", STRING, "producer", COMPRESSION_TYPE, TOPIC,
        "Codec that batches are stored with; producer keeps what the producer chose."),
    Key("compression.gzip.level", INT, -1, gzip_level, TOPIC,
        "Effort when the broker itself compresses with gzip."),
    Key("compression.lz4.level", INT, 9, between(1, 17), TOPIC,
        "Effort when the broker itself compresses with lz4."),
    Key("compression.zstd.level", INT, 3, between(-131072, 22), TOPIC,
        "Effort when the broker itself compresses with zstd."),
    Key("preallocate", BOOLEAN, False, anything, TOPIC,
        "Give segment files their full size at once."),
    Key("message.format.version", STRING, "3.0-IV1", kafka_version, TOPIC,
        "Message format of old brokers; always v2 now."),
    Key("message.timestamp.type", STRING, "CreateTime", TIMESTAMP_TYPE, TOPIC,
        "Whether records carry the producer's time or the broker's."),
    Key("message.timestamp.difference.max.ms", LONG, MAX_LONG, at_least(0), TOPIC,
        "Older name for both bounds below."),
    Key("message.timestamp.before.max.ms", LONG, MAX_LONG, at_least(0), TOPIC,
        "How far a record's time may lie in the past."),
    Key("message.timestamp.after.max.ms", LONG, MAX_LONG, at_least(0), TOPIC,
        "How far a record's time may lie in the future."),
    Key("leader.replication.throttled.replicas", LIST, (),
        throttled_replicas("leader.replication.throttled.replicas"), TOPIC,
        "Leaders, partition:broker,... or *, whose sending leader.replication.throttled.rate bounds."),
    Key("follower.replication.throttled.replicas", LIST, (),
        throttled_replicas("follower.replication.throttled.replicas"), TOPIC,
        "Followers, partition:broker,... or *, whose taking follower.replication.throttled.rate bounds."),
    Key("message.downconversion.enable", BOOLEAN, True, anything, TOPIC,
        "Convert records for clients that fetch with formats v0 and v1."),
    Key("remote.storage.enable", BOOLEAN, False, anything, TOPIC,
        "Keep old segments in tiered storage."),
    Key("local.retention.ms", LONG, -2, at_least(-2), TOPIC,
        "Age at which segments already copied leave the local disk; -2 follows retention.ms."),
    Key("local.retention.bytes", LONG, -2, at_least(-2), TOPIC,
        "Local size at which segments already copied are dropped; -2 follows retention.bytes."),
    Key("remote.log.copy.disable", BOOLEAN, False, anything, TOPIC,
        "Stop copying new segments to tiered storage."),
    Key("remote.log.delete.on.disable", BOOLEAN, False, anything, TOPIC,
        "Delete the remote segments when tiered storage is turned off."),
)
# fmt: on
TOPIC_KEYS: Final[dict[str, Key]] = {key.name: key for key in _TOPIC_KEYS}

BROKER_SYNONYMS: Final[dict[str, tuple[str, ...]]] = {
    "cleanup.policy": ("log.cleanup.policy",),
    "compression.gzip.level": ("compression.gzip.level",),
    "compression.lz4.level": ("compression.lz4.level",),
    "compression.type": ("compression.type",),
    "compression.zstd.level": ("compression.zstd.level",),
    "delete.retention.ms": ("log.cleaner.delete.retention.ms",),
    "file.delete.delay.ms": ("log.segment.delete.delay.ms",),
    "flush.messages": ("log.flush.interval.messages",),
    "flush.ms": ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
    "index.interval.bytes": ("log.index.interval.bytes",),
    "local.retention.bytes": ("log.local.retention.bytes",),
    "local.retention.ms": ("log.local.retention.ms",),
    "max.compaction.lag.ms": ("log.cleaner.max.compaction.lag.ms",),
    "max.message.bytes": ("message.max.bytes",),
    "message.downconversion.enable": ("log.message.downconversion.enable",),
    "message.format.version": ("log.message.format.version",),
    "message.timestamp.after.max.ms": ("log.message.timestamp.after.max.ms",),
    "message.timestamp.before.max.ms": ("log.message.timestamp.before.max.ms",),
    "message.timestamp.difference.max.ms": ("log.message.timestamp.difference.max.ms",),
    "message.timestamp.type": ("log.message.timestamp.type",),
    "min.cleanable.dirty.ratio": ("log.cleaner.min.cleanable.ratio",),
    "min.compaction.lag.ms": ("log.cleaner.min.compaction.lag.ms",),
    "min.insync.replicas": ("min.insync.replicas",),
    "preallocate": ("log.preallocate",),
    "retention.bytes": ("log.retention.bytes",),
    "retention.ms": ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
    "segment.bytes": ("log.segment.bytes",),
    "segment.index.bytes": ("log.index.size.max.bytes",),
    "segment.jitter.ms": ("log.roll.jitter.ms", "log.roll.jitter.hours"),
    "segment.ms": ("log.roll.ms", "log.roll.hours"),
    "unclean.leader.election.enable": ("unclean.leader.election.enable",),
}
"""The broker keys that give a topic config its default; the first that has a value counts."""

_MILLISECONDS: Final = {".minutes": 60_000, ".hours": 3_600_000}
_TIMESTAMP_BOUNDS: Final = ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms")


def topic_values(overrides: Mapping[str, str], broker: BrokerConfig) -> dict[str, Value]:
    """The value of every topic config, from a topic's overrides and the broker's defaults. Raises ConfigError.

    A name that is not in the table, which a newer tool may have written into the metadata, has no effect.
    """
    values = {name: _broker_default(key, broker) for name, key in TOPIC_KEYS.items()}
    _apply_older_bound(values)
    for name, text in overrides.items():
        if name in TOPIC_KEYS:
            values[name] = TOPIC_KEYS[name].parse(text)
    return values


def topic_config_problem(overrides: Mapping[str, str], broker: BrokerConfig) -> str | None:
    """Why a topic's log cannot obey these, as somebody has written them into the metadata; None if it can."""
    try:
        topic_values(overrides, broker)
    except ConfigError as error:
        return str(error)
    return None


def topic_config(overrides: Mapping[str, str], broker: BrokerConfig) -> LogConfig:
    """What a topic's log obeys. `overrides` have no `topic_config_problem`."""
    values = topic_values(overrides, broker)
    _apply_older_bound(values)
    arguments: dict[str, Any] = {name: values[name] for name in values if TOPIC_KEYS[name].attribute in _LOG_FIELDS}
    arguments["cleanup.policy"] = frozenset(arguments["cleanup.policy"])
    for name in ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas"):
        arguments[name] = parse_throttled_replicas(arguments[name])
    return LogConfig(**{TOPIC_KEYS[name].attribute: value for name, value in arguments.items()})


_LOG_FIELDS: Final = frozenset(field.name for field in fields(LogConfig) if field.init)


def _broker_default(key: Key, broker: BrokerConfig) -> Value:
    for synonym in BROKER_SYNONYMS.get(key.name, ()):
        value = broker.values[synonym]
        if isinstance(value, int) and (unit := synonym[synonym.rindex(".") :]) in _MILLISECONDS:
            value *= _MILLISECONDS[unit]
        if value is not None:
            # A broker may say "for ever" with any negative number of hours, a topic only with -1.
            return max(value, -1) if key.name == "retention.ms" and isinstance(value, int) else value
    return key.default


def _apply_older_bound(values: dict[str, Value]) -> None:
    """message.timestamp.difference.max.ms bounds both directions unless the newer configs bound one (KIP-937)."""
    for bound in _TIMESTAMP_BOUNDS:
        if values[bound] == MAX_LONG:
            values[bound] = values["message.timestamp.difference.max.ms"]


def validate_topic_configs(overrides: Mapping[str, str | None], broker: BrokerConfig) -> None:
    """Whether these may be the overrides of a topic. Raises ApiError(INVALID_CONFIG) with Apache Kafka's sentence."""
    if nulls := [name for name, text in overrides.items() if text is None]:
        raise _invalid(f"Null value not supported for topic configs: {','.join(nulls)}")
    if unknown := next((name for name in overrides if name not in TOPIC_KEYS), None):
        raise _invalid(f"Unknown topic config name: {unknown}")
    try:
        values = topic_values({name: text for name, text in overrides.items() if text is not None}, broker)
    except ConfigError as error:
        raise _invalid(kafka_message(error)) from error
    lower, upper = values["min.compaction.lag.ms"], values["max.compaction.lag.ms"]
    assert isinstance(lower, int)
    assert isinstance(upper, int)
    if lower > upper:
        conflict = f"min.compaction.lag.ms ({lower}) > max.compaction.lag.ms ({upper})"
        raise _invalid(f"conflict topic config setting {conflict}")
    if values["remote.storage.enable"]:
        tiered = "Tiered Storage functionality is disabled in the broker."
        raise _invalid(f"{tiered} Topic cannot be configured with remote log storage.")
    if values["remote.log.copy.disable"] or values["remote.log.delete.on.disable"]:
        raise _invalid("remote.log.copy.disable and remote.log.delete.on.disable need tiered storage, which kpy lacks.")


def _invalid(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_CONFIG, message)
