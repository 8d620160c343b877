"""The cluster as one immutable value: what handlers, the replica layer and the pure machines read.

A change makes a new image that shares what did not change, so holding one is holding a consistent view, and comparing
two topics by identity tells whether anything about them changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_LEADER = -1
NO_CONTROLLER = -1

NO_STATE = -1
"""The partition epoch of a partition that no controller has given a state yet."""


@dataclass(frozen=True, slots=True)
class PartitionImage:
    partition: int
    leader: int
    """A broker id, or NO_LEADER."""
    leader_epoch: int
    replicas: tuple[int, ...]
    """Broker ids; the first is the preferred leader."""
    isr: tuple[int, ...]
    partition_epoch: int = 0
    """Counts the changes of leader and ISR: the version of the state's node in ZooKeeper."""
    recovering: bool = False
    """Whether the leader was elected uncleanly and its followers are not in step with it yet."""
    adding: tuple[int, ...] = ()
    """Those of the replicas that a reassignment brings in."""
    removing: tuple[int, ...] = ()
    """Those of the replicas that a reassignment takes away."""


@dataclass(frozen=True, slots=True)
class TopicImage:
    name: str
    topic_id: bytes
    partitions: tuple[PartitionImage, ...]
    """Indexed by partition number: a topic has no gaps."""
    configs: Mapping[str, str] = field(default_factory=dict[str, str])
    """The topic's own overrides only."""


@dataclass(frozen=True, slots=True)
class BrokerImage:
    broker_id: int
    rack: str | None
    endpoints: Mapping[str, tuple[str, int]]
    """Advertised host and port by listener name."""
    epoch: int = 0
    """Which registration this is: each is numbered higher than all before (the czxid of its node)."""
    security_protocols: Mapping[str, str] = field(default_factory=dict[str, str])
    """By listener name; PLAINTEXT for one that is not here."""


@dataclass(frozen=True, slots=True)
class MetadataImage:
    cluster_id: str
    controller_id: int
    """A broker id, or NO_CONTROLLER."""
    brokers: Mapping[int, BrokerImage]
    """The live brokers."""
    topics: Mapping[str, TopicImage]
    topic_names: Mapping[bytes, str]
    """Topic id to name."""
    broker_configs: Mapping[str, Mapping[str, str]]
    """Dynamic broker configs by broker id as text; "" is the cluster-wide default."""
