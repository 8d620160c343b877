"""What a controller decides about topics: their names, where replicas go, who leads.

Pure: requests and an image come in, planned topics go out. `plan_topic` and `plan_partitions` check a request in Apache
Kafka's order and answer with the topic as it will be, or raise ApiError with Kafka's own text, which admin clients and
their test suites compare. Nothing is written here: kpy/metadata/cluster.py does that.

Two refusals Apache Kafka's ZooKeeper mode does not know: replicas on brokers that do not exist (the topic would wait
for a leader forever; KRaft refuses them too), and topics or configs that would not fit into their node.
"""

import random
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from kpy.controller.elections import first_leader
from kpy.errors import ApiError, ErrorCode
from kpy.ids import new_id
from kpy.metadata.image import NO_LEADER, NO_STATE, BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.wire.primitives import MAX_STRING_BYTES

if TYPE_CHECKING:
    # Not at run time: these codecs are imported when somebody asks for topics.
    from kpy.wire.create_partitions import CreatePartitionsTopic
    from kpy.wire.create_topics import CreatableTopic

CONSUMER_OFFSETS = "__consumer_offsets"
TRANSACTION_STATE = "__transaction_state"
CLUSTER_METADATA = "__cluster_metadata"
INTERNAL_TOPICS = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE})

MAX_NAME_LENGTH = 249
MAX_PARTITIONS = 10_000
"""Of one topic, so that its node fits in the store, and a slip of the finger does not fill the disk."""
MAX_CONFIG_BYTES = 128 * 1024
"""Keys and values of one topic or broker together, so that their node fits in the store."""
USE_DEFAULT = -1
"""In a request: as many partitions, or replicas, as the broker's configuration says."""

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")

Assignment = Mapping[int, Sequence[int]]
"""Replicas by partition; broker ids, the preferred leader first."""


class TopicDefaults(NamedTuple):
    num_partitions: int
    replication_factor: int


def is_internal(name: str) -> bool:
    return name in INTERNAL_TOPICS


def name_error(name: str) -> str | None:
    """Why the name is not a topic's, or None if it may be one (Kafka class Topic)."""
    if not name:
        reason = "the empty string is not allowed"
    elif name in (".", ".."):
        reason = f"'{name}' is not allowed"
    elif len(name) > MAX_NAME_LENGTH:
        reason = f"the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
    elif not _LEGAL_NAME.fullmatch(name):
        reason = f"'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    else:
        return None
    return f"Topic name is invalid: {reason}"


def validate_name(name: str) -> None:
    """Raises ApiError(INVALID_TOPIC_EXCEPTION)."""
    error = name_error(name)
    if error is not None:
        raise ApiError(ErrorCode.INVALID_TOPIC_EXCEPTION, error)


def plan_topic(
    topic: "CreatableTopic",
    image: MetadataImage,
    planned: Collection[str],
    defaults: TopicDefaults,
    rng: random.Random,
) -> TopicImage:
    """The topic that a request (CreateTopics, or an automatic creation) asks for, with a new id.

    `planned` are names that the same request has taken already. Values of configs are not judged here.
    Raises ApiError as Kafka's ZkAdminManager does.
    """
    if topic.name in image.topics:
        raise ApiError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{topic.name}' already exists.")
    null_configs = [config.name for config in topic.configs if config.value is None]
    if null_configs:
        raise ApiError(
            ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {','.join(null_configs)}"
        )
    if topic.assignments:
        if topic.num_partitions != USE_DEFAULT or topic.replication_factor != USE_DEFAULT:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "Both numPartitions or replicationFactor and replicasAssignments were set."
                " Both cannot be used at the same time.",
            )
        assignment: Assignment = {entry.partition_index: entry.broker_ids for entry in topic.assignments}
        _check_partition_count(len(topic.assignments))
    else:
        assignment = assign_replicas(
            image.brokers,
            defaults.num_partitions if topic.num_partitions == USE_DEFAULT else topic.num_partitions,
            defaults.replication_factor if topic.replication_factor == USE_DEFAULT else topic.replication_factor,
            rng,
        )
    validate_name(topic.name)
    _check_collision(topic.name, [*image.topics, *planned])
    if topic.assignments:
        _check_manual_assignment(topic, assignment, image)
    configs = {config.name: config.value for config in topic.configs if config.value is not None}
    check_config_size(configs)
    return TopicImage(topic.name, new_id(rng), _elect(assignment, image), configs)


def plan_partitions(topic: "CreatePartitionsTopic", image: MetadataImage, rng: random.Random) -> TopicImage:
    """The topic with the partitions that CreatePartitions adds. Raises ApiError as Kafka's ZkAdminManager does."""
    existing = image.topics.get(topic.name)
    if existing is None:
        raise ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{topic.name}' does not exist.")
    count = len(existing.partitions)
    if topic.count < count:
        raise ApiError(
            ErrorCode.INVALID_PARTITIONS,
            f"Topic currently has {count} partitions, which is higher than the requested {topic.count}.",
        )
    if topic.count == count:
        raise ApiError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {count} partitions.")
    first_replicas = existing.partitions[0].replicas
    if topic.assignments is None:
        assignment = assign_replicas(
            image.brokers,
            topic.count - count,
            len(first_replicas),
            rng,
            after=first_replicas[0],
            start_partition=count,
        )
    else:
        _check_partition_count(topic.count)
        added = [entry.broker_ids for entry in topic.assignments]
        assignment = dict(enumerate(added, start=count))
        _check_added_assignment(assignment, topic.count - count, len(first_replicas), image)
    return TopicImage(
        existing.name, existing.topic_id, existing.partitions + _elect(assignment, image), existing.configs
    )


def assign_replicas(
    brokers: Mapping[int, BrokerImage],
    num_partitions: int,
    replication_factor: int,
    rng: random.Random,
    *,
    after: int | None = None,
    start_partition: int = 0,
) -> dict[int, list[int]]:
    """Spreads partitions over brokers, and a partition's replicas over racks (Kafka class AdminUtils).

    First replicas go round the brokers from a random one, or from the first whose id is not below `after`; the others
    follow at a distance that grows with each round, so that two brokers do not share all their partitions. If brokers
    name racks, all must, and a partition uses a rack twice only once it uses every rack. Raises ApiError:
    INVALID_PARTITIONS, INVALID_REPLICATION_FACTOR, UNKNOWN_SERVER_ERROR (racks incomplete).
    """
    if num_partitions <= 0:
        raise ApiError(ErrorCode.INVALID_PARTITIONS, "Number of partitions must be larger than 0.")
    if replication_factor <= 0:
        raise ApiError(ErrorCode.INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0.")
    if replication_factor > len(brokers):
        raise ApiError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            f"Replication factor: {replication_factor} larger than available brokers: {len(brokers)}.",
        )
    _check_partition_count(start_partition + num_partitions)
    racks = _racks(brokers)
    num_racks = len(set(racks.values()))
    order = _rack_alternating(racks)
    if after is None:
        start, shift = rng.randrange(len(order)), rng.randrange(len(order))
    else:
        start = shift = next((index for index, broker_id in enumerate(sorted(brokers)) if broker_id >= after), 0)
    assignment: dict[int, list[int]] = {}
    for partition in range(start_partition, start_partition + num_partitions):
        if partition > 0 and partition % len(order) == 0:
            shift += 1
        first = (partition + start) % len(order)
        assignment[partition] = _place(order, racks, first, shift * num_racks, replication_factor)
    return assignment


def _place(order: Sequence[int], racks: Mapping[int, str], first: int, shift: int, count: int) -> list[int]:
    """`count` brokers for one partition, beginning with `order[first]`."""
    num_racks = len(set(racks.values()))
    replicas = [order[first]]
    used_racks = {racks[order[first]]}
    step = 0
    while len(replicas) < count:
        candidate = order[(first + 1 + (shift + step) % (len(order) - 1)) % len(order)]
        step += 1
        rack_is_free = racks[candidate] not in used_racks or len(used_racks) == num_racks
        if rack_is_free and candidate not in replicas:
            replicas.append(candidate)
            used_racks.add(racks[candidate])
    return replicas


def _racks(brokers: Mapping[int, BrokerImage]) -> dict[int, str]:
    """Rack by broker, in the order of broker ids. Where no broker names a rack, all stand in one."""
    named = {broker_id: brokers[broker_id].rack for broker_id in sorted(brokers)}
    if all(rack is None for rack in named.values()):
        return dict.fromkeys(named, "")
    racks = {broker_id: rack for broker_id, rack in named.items() if rack is not None}
    if len(racks) < len(named):
        raise ApiError(
            ErrorCode.UNKNOWN_SERVER_ERROR, "Not all brokers have rack information for replica rack aware assignment."
        )
    return racks


def _rack_alternating(racks: Mapping[int, str]) -> list[int]:
    """The brokers with neighbours in different racks as long as possible: a's first, b's first, a's second, ..."""
    position: dict[int, int] = {}
    seen: dict[str, int] = {}
    for broker_id in sorted(racks):
        rack = racks[broker_id]
        position[broker_id] = seen.get(rack, 0)
        seen[rack] = position[broker_id] + 1
    return sorted(racks, key=lambda broker_id: (position[broker_id], racks[broker_id]))


def _elect(assignment: Assignment, image: MetadataImage) -> tuple[PartitionImage, ...]:
    """New partitions, each with its first state if one of its brokers lives."""
    partitions: list[PartitionImage] = []
    for index, replicas in sorted(assignment.items()):
        partition = PartitionImage(index, NO_LEADER, 0, tuple(replicas), (), NO_STATE)
        partitions.append(first_leader(partition, image.brokers) or partition)
    return tuple(partitions)


def check_config_size(configs: Mapping[str, str]) -> None:
    """Raises ApiError(INVALID_CONFIG) for more than MAX_CONFIG_BYTES, or a value that no response can carry.

    Appending to a list is how a value grows beyond what a request could have set.
    """
    size = 0
    for name, value in configs.items():
        value_size = len(value.encode())
        if value_size > MAX_STRING_BYTES:
            message = f"The value of {name} has {value_size} bytes, more than {MAX_STRING_BYTES}."
            raise ApiError(ErrorCode.INVALID_CONFIG, message)
        size += len(name.encode()) + value_size
    if size > MAX_CONFIG_BYTES:
        raise ApiError(ErrorCode.INVALID_CONFIG, f"Configs of {size} bytes are larger than {MAX_CONFIG_BYTES}.")


def _check_partition_count(count: int) -> None:
    if count > MAX_PARTITIONS:
        raise ApiError(ErrorCode.INVALID_PARTITIONS, f"Number of partitions must not be larger than {MAX_PARTITIONS}.")


def _check_collision(name: str, existing: Collection[str]) -> None:
    """Metric names turn dots into underscores, so names that differ only in those must not stand side by side."""
    if "_" not in name and "." not in name:
        return
    unified = name.replace(".", "_")
    colliding = [other for other in existing if other.replace(".", "_") == unified]
    if colliding:
        raise ApiError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            f"Topic '{name}' collides with existing topics: {', '.join(colliding)}",
        )


def _check_manual_assignment(topic: "CreatableTopic", assignment: Assignment, image: MetadataImage) -> None:
    if len({len(replicas) for replicas in assignment.values()}) != 1:
        _refuse_assignment("All partitions should have the same number of replicas")
    for partition, replicas in assignment.items():
        if not replicas:
            _refuse_assignment(f"Cannot have replication factor of 0 for partition id {partition}.")
        if len(replicas) != len(set(replicas)):
            _refuse_assignment(f"Duplicate replica assignment found: {dict(assignment)}")
    if len(assignment) != len(topic.assignments) or sorted(assignment) != list(range(len(assignment))):
        _refuse_assignment("partitions should be a consecutive 0-based integer sequence")
    _check_brokers_exist(assignment, image)


def _check_added_assignment(
    assignment: Assignment, expected: int, replication_factor: int, image: MetadataImage
) -> None:
    _check_brokers_exist(assignment, image)
    if len(assignment) != expected:
        _refuse_assignment(
            f"Increasing the number of partitions by {expected} but {len(assignment)} assignments provided."
        )
    for partition, replicas in assignment.items():
        if not replicas:
            _refuse_assignment(f"Cannot have replication factor of 0 for partition id {partition}.")
        if len(replicas) != len(set(replicas)):
            _refuse_assignment(
                "Duplicate brokers not allowed in replica assignment:"
                f" {', '.join(map(str, replicas))} for partition id {partition}."
            )
    uneven = {
        partition: len(replicas) for partition, replicas in assignment.items() if len(replicas) != replication_factor
    }
    if uneven:
        _refuse_assignment(
            f"Inconsistent replication factor between partitions, partition 0 has {replication_factor}"
            f" while partitions [{', '.join(map(str, uneven))}] have"
            f" replication factors [{', '.join(map(str, uneven.values()))}], respectively."
        )


def _check_brokers_exist(assignment: Assignment, image: MetadataImage) -> None:
    unknown = sorted({broker_id for replicas in assignment.values() for broker_id in replicas} - set(image.brokers))
    if unknown:
        _refuse_assignment(f"Unknown broker(s) in replica assignment: {', '.join(map(str, unknown))}.")


def _refuse_assignment(message: str) -> NoReturn:
    raise ApiError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)
