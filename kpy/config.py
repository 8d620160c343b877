"""The configuration of a broker: every key's value, where it came from, and the checks that span several keys.

Values are layered as in Apache Kafka: defaults, then what the broker was started with (see `kpy.config_sources`), then
the dynamic configs kept for all brokers, then those kept for this one. A `BrokerConfig` never changes; a dynamic update
makes a new one with `with_overrides`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from kpy import config_checks, config_keys, listeners
from kpy.config_keys import BROKER_KEYS, DYNAMIC_ONLY_KEYS, KPY_DEFAULTS, OTHER_KEYS
from kpy.config_sources import Setting
from kpy.config_types import PER_BROKER, READ_ONLY, ConfigError, Value
from kpy.errors import ApiError, ErrorCode
from kpy.listeners import Endpoint

__all__ = ["BrokerConfig", "ConfigError", "Setting", "validate_overrides"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class BrokerConfig:
    """Every key of the table as an attribute, dots as underscores, typed as in the table.

    Declared here are the keys that kpy acts on, and what is derived from several of them; `get` has the others. The
    constructor takes the layers, with those defaults that depend on the machine. It raises ConfigError for a value,
    or a combination of values, that Apache Kafka would refuse or kpy cannot honour.
    """

    # The layers: what the broker was started with, the defaults, and the two levels of dynamic configs.
    settings: Mapping[str, Setting]
    defaults: Mapping[str, Value]
    cluster_overrides: Mapping[str, str]
    broker_overrides: Mapping[str, str]

    # Derived.
    values: Mapping[str, Value]
    """Every key's value, those outside the table included."""
    origins: Mapping[str, str]
    """Where each key that is set was set, in words for the operator; the others have their defaults."""
    endpoints: tuple[Endpoint, ...]
    """Where to listen."""
    advertised_endpoints: tuple[Endpoint, ...]
    """Where clients are told to connect: empty hosts and zero ports are yet to be filled in, see `advertised`."""
    inter_broker_listener: str
    security_protocols: Mapping[str, str]
    """What is spoken on each listener, by its name: PLAINTEXT or SSL."""
    data_dirs: tuple[Path, ...]
    warnings: tuple[str, ...]
    """What the operator should hear once the log is open."""

    # Identity, network, and limits on requests.
    broker_id: int
    broker_rack: str | None

    # ZooKeeper.
    zookeeper_connect: str | None
    zookeeper_session_timeout_ms: int
    zookeeper_connection_timeout_ms: int | None
    zookeeper_max_in_flight_requests: int
    zookeeper_set_acl: bool
    zookeeper_ssl_client_enable: bool
    zookeeper_ssl_keystore_location: str | None
    zookeeper_ssl_keystore_password: str | None
    zookeeper_ssl_truststore_location: str | None
    zookeeper_ssl_endpoint_identification_algorithm: str
    java_security_auth_login_config: str | None
    zookeeper_sasl_client: bool
    zookeeper_sasl_clientconfig: str

    cluster_id: str | None
    socket_send_buffer_bytes: int
    socket_receive_buffer_bytes: int
    socket_request_max_bytes: int
    socket_listen_backlog_size: int
    connections_max_idle_ms: int
    max_connections: int
    max_connections_per_ip: int
    max_connections_per_ip_overrides: str
    max_incremental_fetch_session_cache_slots: int
    fetch_max_bytes: int

    # Topics and logs.
    auto_create_topics_enable: bool
    compression_type: str
    compression_gzip_level: int
    compression_lz4_level: int
    compression_zstd_level: int
    default_replication_factor: int
    delete_topic_enable: bool
    log_cleaner_backoff_ms: int
    log_cleaner_dedupe_buffer_size: int
    log_cleaner_delete_retention_ms: int
    log_cleaner_enable: bool
    log_cleaner_io_buffer_load_factor: float
    log_cleaner_io_max_bytes_per_second: float
    log_cleaner_max_compaction_lag_ms: int
    log_cleaner_min_cleanable_ratio: float
    log_cleaner_min_compaction_lag_ms: int
    log_cleaner_threads: int
    log_cleanup_policy: tuple[str, ...]
    log_flush_interval_messages: int
    log_flush_interval_ms: int | None
    log_flush_scheduler_interval_ms: int
    log_index_interval_bytes: int
    log_index_size_max_bytes: int
    log_message_downconversion_enable: bool
    log_message_timestamp_after_max_ms: int
    log_message_timestamp_before_max_ms: int
    log_message_timestamp_difference_max_ms: int
    log_message_timestamp_type: str
    log_preallocate: bool
    log_retention_bytes: int
    log_retention_check_interval_ms: int
    log_retention_hours: int
    log_retention_minutes: int | None
    log_retention_ms: int | None
    log_roll_hours: int
    log_roll_jitter_hours: int
    log_roll_jitter_ms: int | None
    log_roll_ms: int | None
    log_segment_bytes: int
    log_segment_delete_delay_ms: int
    message_max_bytes: int
    min_insync_replicas: int
    num_partitions: int
    leader_replication_throttled_rate: int
    follower_replication_throttled_rate: int
    replication_quota_window_num: int
    replication_quota_window_size_seconds: int
    alter_log_dirs_replication_quota_window_num: int
    alter_log_dirs_replication_quota_window_size_seconds: int
    replica_alter_log_dirs_io_max_bytes_per_second: int
    num_replica_fetchers: int
    replica_fetch_backoff_ms: int
    replica_fetch_max_bytes: int
    replica_fetch_min_bytes: int
    replica_fetch_response_max_bytes: int
    replica_fetch_wait_max_ms: int
    replica_lag_time_max_ms: int
    replica_socket_timeout_ms: int
    request_timeout_ms: int
    controller_socket_timeout_ms: int
    auto_leader_rebalance_enable: bool
    leader_imbalance_check_interval_seconds: int
    leader_imbalance_per_broker_percentage: int
    controlled_shutdown_enable: bool
    controlled_shutdown_max_retries: int
    controlled_shutdown_retry_backoff_ms: int
    replica_high_watermark_checkpoint_interval_ms: int
    unclean_leader_election_enable: bool

    # Groups, offsets, transactions.
    group_initial_rebalance_delay_ms: int
    group_max_session_timeout_ms: int
    group_max_size: int
    group_min_session_timeout_ms: int
    offset_metadata_max_bytes: int
    offsets_commit_timeout_ms: int
    offsets_retention_check_interval_ms: int
    offsets_retention_minutes: int
    offsets_topic_compression_codec: int
    offsets_topic_num_partitions: int
    offsets_topic_replication_factor: int
    offsets_topic_segment_bytes: int
    producer_id_expiration_ms: int
    transaction_abort_timed_out_transaction_cleanup_interval_ms: int
    transaction_max_timeout_ms: int
    transaction_partition_verification_enable: bool
    transaction_remove_expired_transaction_cleanup_interval_ms: int
    transaction_state_log_min_isr: int
    transaction_state_log_num_partitions: int
    transaction_state_log_replication_factor: int
    transaction_state_log_segment_bytes: int
    transactional_id_expiration_ms: int

    def __init__(
        self,
        settings: Mapping[str, Setting],
        defaults: Mapping[str, Value] = NOTHING,
        cluster_overrides: Mapping[str, str] = NOTHING,
        broker_overrides: Mapping[str, str] = NOTHING,
    ) -> None:
        settings = _with_both_ids(settings)
        defaults = {name: key.default for name, key in BROKER_KEYS.items()} | KPY_DEFAULTS | dict(defaults)
        merged = _merge(settings, cluster_overrides, broker_overrides)
        texts = {key: setting.text for key, setting in merged.items()}
        origins = {key: setting.origin for key, setting in merged.items()}
        try:
            values = defaults | _parse(merged)
            config_checks.check_available(values, texts)
            config_checks.check_values(values)
            warnings = config_checks.remarks(texts, origins) + config_checks.clamp_to_one_broker(values)
            endpoints, advertised, inter_broker, protocols = config_checks.resolve_listeners(values, merged)
            data_dirs = config_checks.data_dirs(values)
        except ConfigError as error:
            raise ConfigError(error.key, error.value, error.allowed, origins.get(error.key, "default")) from None
        # Through __dict__, because attributes cannot be assigned: whoever holds a config may rely on it.
        self.__dict__.update(
            {key.attribute: values.get(key.name, key.default) for key in _ALL_KEYS},
            settings=settings,
            defaults=defaults,
            cluster_overrides=cluster_overrides,
            broker_overrides=broker_overrides,
            values=values,
            warnings=tuple(warnings),
            endpoints=endpoints,
            advertised_endpoints=advertised,
            inter_broker_listener=inter_broker,
            security_protocols=protocols,
            data_dirs=data_dirs,
            origins=origins,
        )

    @classmethod
    def of(cls, texts: Mapping[str, str], origin: str = "") -> "BrokerConfig":
        """A configuration from plain texts, for tests and for programs that embed a broker."""
        return cls({key: Setting(text, origin) for key, text in texts.items()})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a BrokerConfig does not change; with_overrides makes a new one with another {name}")

    @property
    def on_zookeeper(self) -> bool:
        """Whether the cluster's metadata is in ZooKeeper, and not in a file of this broker's."""
        return config_checks.on_zookeeper(self.values)

    def get(self, key: str) -> Value:
        """The value of any key by its name in Kafka, None for one that is unknown and not set."""
        return self.values.get(key)

    def advertised(self, bound_ports: Mapping[str, int], hostname: str) -> dict[str, tuple[str, int]]:
        """Where clients are told to connect: (host, port) by listener name, once ports are bound.

        `bound_ports` replaces ports that the system chose; `hostname` is this machine's, for listeners without a host.
        """
        return {
            endpoint.name: (endpoint.host or hostname, endpoint.port or bound_ports[endpoint.name])
            for endpoint in self.advertised_endpoints
        }

    def with_overrides(self, cluster: Mapping[str, str], broker: Mapping[str, str]) -> "BrokerConfig":
        """This configuration with the dynamic configs of all brokers and of this one, which replace earlier ones.

        Stored configs that were never valid are left out, as Apache Kafka does. Raises ConfigError if what remains
        does not fit together; the earlier configuration then stays in force.
        """
        kept: list[dict[str, str]] = []
        for overrides, per_broker in ((cluster, False), (broker, True)):
            kept.append({key: text for key, text in overrides.items() if not _refusal({key: text}, per_broker)})
        return BrokerConfig(self.settings, self.defaults, *kept)


def validate_overrides(config: BrokerConfig, overrides: Mapping[str, str], *, per_broker: bool) -> BrokerConfig:
    """Whether these may become the dynamic configs of one broker, or of all. Raises ApiError(INVALID_REQUEST).

    Returns the configuration that they make. `overrides` is the complete new set, not the change. Apache Kafka:
    DynamicBrokerConfig.validate.
    """
    refusal = _refusal(overrides, per_broker)
    if refusal:
        raise ApiError(ErrorCode.INVALID_REQUEST, refusal)
    try:
        return config.with_overrides(
            config.cluster_overrides if per_broker else overrides, overrides if per_broker else config.broker_overrides
        )
    except ConfigError as error:
        raise ApiError(ErrorCode.INVALID_REQUEST, kafka_message(error)) from error


def kafka_message(error: ConfigError) -> str:
    """The sentence in which Apache Kafka tells a client of an invalid value."""
    return f"Invalid value {error.value} for configuration {error.key}: {error.allowed}"


_DERIVED_FROM: Final = frozenset(
    {
        *("advertised.listeners", "control.plane.listener.name", "controller.listener.names"),
        *("inter.broker.listener.name", "listener.security.protocol.map", "listeners", "log.dir", "log.dirs"),
        *("node.id", "security.inter.broker.protocol"),
        *config_keys.RELOADABLE_SSL_KEYS,
        *("ssl.cipher.suites", "ssl.client.auth", "ssl.enabled.protocols"),
    }
)
"""Keys that act through the derived attributes, or for one listener at a time (tls_context.py)."""


def has_effect(key: str) -> bool:
    """Whether kpy acts on a key, or only accepts and shows it."""
    known = config_keys.find(key)
    return known is not None and (known.attribute in BrokerConfig.__annotations__ or known.name in _DERIVED_FROM)


_ALL_KEYS: Final = (*BROKER_KEYS.values(), *DYNAMIC_ONLY_KEYS.values(), *OTHER_KEYS.values())
_FIXED_AT_START: Final = frozenset({"listeners", "advertised.listeners", "listener.security.protocol.map"})
"""Dynamic in Apache Kafka, whose brokers open listeners while they run; kpy opens and announces its own at start."""


def _refusal(overrides: Mapping[str, str], per_broker: bool) -> str | None:
    """Why these cannot be dynamic configs, or None."""
    known = {key: BROKER_KEYS[key] for key in overrides if key in BROKER_KEYS}
    if fixed := [key for key in known if known[key].update == READ_ONLY or key in _FIXED_AT_START]:
        return f"Cannot update these configs dynamically: {_scala_set(fixed)}"
    if unprefixed := [key for key in known if key in config_keys.RELOADABLE_SSL_KEYS]:
        return (
            "These security configs can be dynamically updated only per-listener using the listener prefix: "
            f"{_scala_set(unprefixed)}"
        )
    try:
        _parse({key: Setting(text, "") for key, text in overrides.items()})
    except ConfigError as error:
        return kafka_message(error)
    alone = [key for key in overrides if (key in known and known[key].update == PER_BROKER) or _is_per_broker(key)]
    if alone and not per_broker:
        return f"Cannot update these configs at default cluster level, broker id must be specified: {_scala_set(alone)}"
    return None


def _is_per_broker(key: str) -> bool:
    base = config_keys.without_listener(key)
    return base is not None and base not in config_keys.CLUSTER_WIDE_LISTENER_KEYS


def _scala_set(keys: Iterable[str]) -> str:
    return f"Set({', '.join(sorted(keys))})"


def _with_both_ids(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """broker.id and node.id are two names of one number; set only one of them and the other follows."""
    both = dict(settings)
    for name, other in (("broker.id", "node.id"), ("node.id", "broker.id")):
        if name in settings and other not in settings:
            both[other] = settings[name]
    return both


def _merge(
    settings: Mapping[str, Setting], cluster: Mapping[str, str], broker: Mapping[str, str]
) -> dict[str, Setting]:
    merged = dict(settings)
    for overrides, origin in ((cluster, "dynamic config of all brokers"), (broker, "dynamic config of this broker")):
        for key, text in overrides.items():
            if config_keys.without_listener(key) is None:
                # A dynamic log.roll.hours wins over the log.roll.ms that the broker was started with.
                for synonym in config_keys.synonyms(key):
                    merged.pop(synonym, None)
            merged[key] = Setting(text, origin)
    if "listeners" not in merged and "advertised.listeners" in merged:
        text, origin = merged["advertised.listeners"]
        merged["listeners"] = Setting(listeners.on_every_interface(text), origin)
    return merged


def _parse(merged: Mapping[str, Setting]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, setting in merged.items():
        key = config_keys.find(name)
        try:
            values[name] = key.parse(setting.text) if key else setting.text
        except ConfigError as error:
            # The row may be that of the key without its listener prefix.
            raise ConfigError(name, error.value, error.allowed) from None
    return values
