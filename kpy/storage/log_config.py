"""The topic configs that act on one log, under Kafka's names with underscores and with the defaults of Kafka 3.9.

Which values are allowed is decided where configs are set; here they are taken as valid.
"""

from dataclasses import dataclass, field

from kpy.records.validate import ProduceRules
from kpy.replication_quota import NO_REPLICAS, ThrottledReplicas

LONG_MAX = (1 << 63) - 1
UNLIMITED = -1

DAY_MS = 24 * 60 * 60 * 1000
WEEK_MS = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class LogConfig:
    """One topic's settings: bytes, ms and counts as in the config's name. `produce_rules` is what an append checks."""

    cleanup_policy: frozenset[str] = frozenset({"delete"})
    compression_type: str = "producer"
    compression_gzip_level: int = -1
    compression_lz4_level: int = 9
    compression_zstd_level: int = 3
    delete_retention_ms: int = DAY_MS
    file_delete_delay_ms: int = 60_000
    flush_messages: int = LONG_MAX
    flush_ms: int = LONG_MAX
    follower_replication_throttled_replicas: ThrottledReplicas = NO_REPLICAS
    index_interval_bytes: int = 4096
    leader_replication_throttled_replicas: ThrottledReplicas = NO_REPLICAS
    max_compaction_lag_ms: int = LONG_MAX
    max_message_bytes: int = 1_048_588
    message_downconversion_enable: bool = True
    message_timestamp_after_max_ms: int = LONG_MAX
    message_timestamp_before_max_ms: int = LONG_MAX
    message_timestamp_type: str = "CreateTime"
    min_cleanable_dirty_ratio: float = 0.5
    min_compaction_lag_ms: int = 0
    min_insync_replicas: int = 1
    preallocate: bool = False
    retention_bytes: int = UNLIMITED
    retention_ms: int = WEEK_MS
    segment_bytes: int = 1 << 30
    segment_index_bytes: int = 10 << 20
    segment_jitter_ms: int = 0
    segment_ms: int = WEEK_MS
    unclean_leader_election_enable: bool = False
    roll_ms: int = field(init=False, repr=False, compare=False)
    """segment.ms, or less where records must become compactable sooner."""
    produce_rules: ProduceRules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rules = ProduceRules(
            max_message_bytes=self.max_message_bytes,
            compacted=self.is_compacted,
            timestamp_type=self.message_timestamp_type,
            timestamp_before_max_ms=self.message_timestamp_before_max_ms,
            timestamp_after_max_ms=self.message_timestamp_after_max_ms,
            compression_type=self.compression_type,
            compression_level=self._compression_level(),
            segment_bytes=self.segment_bytes,
        )
        roll_ms = min(self.segment_ms, self.max_compaction_lag_ms) if self.is_compacted else self.segment_ms
        object.__setattr__(self, "produce_rules", rules)
        object.__setattr__(self, "roll_ms", roll_ms)

    def _compression_level(self) -> int | None:
        """The level of the topic's own codec; None where there is none to choose."""
        levels = {
            "gzip": self.compression_gzip_level,
            "lz4": self.compression_lz4_level,
            "zstd": self.compression_zstd_level,
        }
        return levels.get(self.compression_type)

    @property
    def preallocated_bytes(self) -> int:
        """The size that the file of a new segment is given at once."""
        return self.segment_bytes if self.preallocate else 0

    @property
    def is_compacted(self) -> bool:
        return "compact" in self.cleanup_policy

    @property
    def is_deleted(self) -> bool:
        """Whether retention.ms and retention.bytes apply."""
        return "delete" in self.cleanup_policy
