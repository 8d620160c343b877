"""CreateTopics (19), DeleteTopics (20), CreatePartitions (37): what is done, and every reason not to."""

from typing import Any

from compat.differential.scenario import Ask, Saved, Scenario
from compat.differential.steps import CREATE_PARTITIONS, CREATE_TOPICS, DELETE_TOPICS, create
from kpy.wire.create_partitions import CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic
from kpy.wire.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from kpy.wire.delete_topics import DeleteTopicsRequest, DeleteTopicState
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic

ID = bytes(16)


def topic(
    name: str, partitions: int = 1, factor: int = 1, assignment: Any = None, **configs: str | None
) -> CreatableTopic:
    assignments = [CreatableReplicaAssignment(index, brokers) for index, brokers in (assignment or {}).items()]
    settings = [CreatableTopicConfig(key.replace("_", "."), value) for key, value in configs.items()]
    return CreatableTopic(name, partitions, factor, assignments, settings)


def creating(*topics: CreatableTopic, timeout_ms: int = 10_000, validate_only: bool = False) -> Ask:
    save = {f"id{index}": f"topics.{index}.topic_id" for index in range(len(topics))}
    return Ask(CreateTopicsRequest(list(topics), timeout_ms, validate_only), save=save)


def created_anyway(answer: Any) -> bool:
    return all(topic.error_code == 0 for topic in answer.topics)


def shown(*names: str) -> Ask:
    return Ask(MetadataRequest([MetadataRequestTopic(ID, name) for name in names], False))


WRONG_TOPICS: dict[str, list[CreatableTopic]] = {
    "names": [topic(name) for name in ("", ".", "..", "a b", "a/b", "x" * 250, "ü", "__cluster_metadata")],
    "partitions": [topic("{a}", 0), topic("{b}", -2), topic("{c}", -1), topic("{d}", 1, 0), topic("{e}", 1, -2)],
    "replication factor": [topic("{a}", 1, 5), topic("{b}", 1, 2), topic("{c}", 1, -1)],
    "configs": [
        topic("{a}", unknown_config="1"),
        topic("{b}", retention_ms="-9"),
        topic("{c}", retention_ms="abc"),
        topic("{d}", retention_ms=None),
        topic("{e}", cleanup_policy="wrong"),
        topic("{f}", cleanup_policy=""),
        topic("{g}", compression_type="none"),
        topic("{h}", min_insync_replicas="0"),
        topic("{i}", segment_bytes="13"),
        topic("{j}", message_timestamp_type="never"),
        topic("{k}", min_cleanable_dirty_ratio="1.5"),
        topic("{l}", min_compaction_lag_ms="10", max_compaction_lag_ms="5"),
        topic("{m}", remote_storage_enable="true"),
        topic("{n}", retention_ms=""),
        topic("{o}", preallocate="maybe"),
        topic("{p}", unclean_leader_election_enable="TRUE"),
        topic("{q}", retention_ms=" 5 "),
        topic("{r}", local_retention_ms="5"),
        topic("{s}", leader_replication_throttled_replicas="x"),
        topic("{t}", message_format_version="2.0"),
        topic("{u}", message_timestamp_difference_max_ms="5"),
    ],
    "assignments": [
        topic("{a}", 1, 1, {0: [1]}),
        topic("{b}", -1, 1, {0: [1]}),
        topic("{c}", -1, -1, {1: [1]}),
        topic("{d}", -1, -1, {0: [1], 2: [1]}),
        topic("{f}", -1, -1, {0: [1, 1]}),
        topic("{h}", -1, -1, {0: [1], 1: [1]}),
        topic("{i}", -1, -1, {-1: [1]}),
    ],
    "brokers in assignments": [
        topic("{a}", -1, -1, {0: [2]}),
        topic("{b}", -1, -1, {0: [-1]}),
        topic("{c}", -1, -1, {0: [1, 2]}),
    ],
    "the same name twice": [topic("{a}"), topic("{b}"), topic("{a}", 2)],
}

NEVER_LED = "brokers in assignments"
"""Both brokers wait out the timeout for a leader; the other topics have one soon, on a busy machine not at once."""


def growing(name: str, count: int, *assignments: list[int], given: bool = False) -> CreatePartitionsTopic:
    chosen = [CreatePartitionsAssignment(brokers) for brokers in assignments] if assignments or given else None
    return CreatePartitionsTopic(name, count, chosen)


def grow(*topics: CreatePartitionsTopic, timeout_ms: int = 10_000, validate_only: bool = False) -> Ask:
    return Ask(CreatePartitionsRequest(list(topics), timeout_ms, validate_only))


def delete(*names: str, timeout_ms: int = 10_000) -> Ask:
    return Ask(DeleteTopicsRequest([DeleteTopicState(name, ID) for name in names], list(names), timeout_ms))


def delete_states(*states: DeleteTopicState) -> Ask:
    return Ask(DeleteTopicsRequest(list(states), [], 10_000))


SCENARIOS = [
    Scenario(
        "create topics: good ones",
        CREATE_TOPICS,
        [
            creating(topic("{a}"), topic("{b}", 3, 1, retention_ms="5", cleanup_policy="compact,delete")),
            shown("{a}", "{b}"),
            creating(topic("{a}"), topic("{c}", -1, -1)),
        ],
    ),
    Scenario("create topics: none", CREATE_TOPICS, [creating()]),
    *(
        Scenario(
            f"create topics: wrong {name}",
            CREATE_TOPICS,
            [creating(*topics, timeout_ms=1_000 if name == NEVER_LED else 10_000)],
            (0, 1, 4, 5, 7),
        )
        for name, topics in WRONG_TOPICS.items()
    ),
    Scenario(
        "create topics: validate only",
        CREATE_TOPICS,
        [
            creating(topic("{a}", 2, retention_ms="5"), topic("{b}", 0), validate_only=True),
            shown("{a}"),
            creating(topic("{a}", 2, retention_ms="5"), validate_only=True),
        ],
        range(1, 100),
    ),
    Scenario(
        "create topics: without waiting",
        CREATE_TOPICS,
        [creating(topic("{a}"), topic("{b}", 0), timeout_ms=0), shown("{a}")._replace(until=created_anyway)],
    ),
    Scenario("create topics: colliding names", CREATE_TOPICS, [create("a_b"), creating(topic("a.b-{x}"))], (0, 7)),
    Scenario(
        "create topics: internal names",
        CREATE_TOPICS,
        [creating(topic("__consumer_offsets"))],
        (0, 7),
    ),
    Scenario(
        "delete topics: by name",
        DELETE_TOPICS,
        [
            create("a"),
            create("b"),
            delete("{a}", "{nothing}", "{b}", "in valid", ""),
            shown("{a}", "{b}"),
            delete("{a}"),
            delete(),
        ],
    ),
    Scenario("delete topics: twice in a request", DELETE_TOPICS, [create("a"), delete("{a}", "{a}")]),
    Scenario("delete topics: without waiting", DELETE_TOPICS, [create("a"), delete("{a}", "{x}", timeout_ms=0)]),
    Scenario(
        "delete topics: by id",
        DELETE_TOPICS,
        [
            create("a"),
            create("b"),
            delete_states(DeleteTopicState("{a}", Saved("a_id"))),  # type: ignore[arg-type]
            delete_states(DeleteTopicState(None, Saved("a_id")), DeleteTopicState(None, b"\7" * 16)),  # type: ignore[arg-type]
            delete_states(DeleteTopicState(None, ID)),
            delete_states(DeleteTopicState(None, Saved("b_id")), DeleteTopicState("{b}", ID)),  # type: ignore[arg-type]
            shown("{a}", "{b}"),
        ],
        (6,),
    ),
    Scenario(
        "create partitions: good ones",
        CREATE_PARTITIONS,
        [create("a"), create("b"), grow(growing("{a}", 3), growing("{b}", 3, [1], [1])), shown("{a}", "{b}"), grow()],
    ),
    Scenario(
        "create partitions: wrong ones",
        CREATE_PARTITIONS,
        [
            create("a", 2),
            *(grow(growing("{a}", count)) for count in (2, 1, 0, -1)),
            grow(growing("{a}", 3, [1], [1])),
            grow(growing("{a}", 4, [1])),
            grow(growing("{a}", 3, [2])),
            grow(growing("{a}", 3, [1, 1])),
            grow(growing("{a}", 3, [])),
            grow(growing("{a}", 3, [-1])),
            grow(growing("{a}", 4, [1], [1, 2])),
            grow(growing("{a}", 3, given=True)),
            grow(growing("{nothing}", 3)),
            grow(growing("{a}", 3), growing("{a}", 4)),
            grow(growing("{a}", 3), validate_only=True),
            shown("{a}"),
            grow(growing("{a}", 3), growing("{a2}", 1), timeout_ms=0),
        ],
    ),
    Scenario(
        "create partitions: wrong names", CREATE_PARTITIONS, [grow(growing(name, 3)) for name in ("", "in valid", ".")]
    ),
]
