"""Metadata (3), DescribeCluster (60), FindCoordinator (10), InitProducerId (22): who and where everything is."""

from typing import Any

from compat.differential.scenario import Ask, Saved, Scenario
from compat.differential.steps import DESCRIBE_CLUSTER, FIND_COORDINATOR, INIT_PRODUCER_ID, METADATA, create
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.describe_cluster import DescribeClusterRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic

ID = b"\0" * 16


def named(*names: str | None, auto: bool = False, version: int | None = None, **fields: Any) -> Ask:
    topics = [MetadataRequestTopic(ID, name) for name in names]
    return Ask(MetadataRequest(topics, auto, **fields), version)


def is_there(answer: Any) -> bool:
    return bool(answer.topics) and all(topic.error_code == 0 for topic in answer.topics)


def created(name: str) -> Ask:
    """Asks for a topic until it has a leader."""
    return named(name)._replace(until=is_there)


SCENARIOS = [
    Scenario(
        "metadata: all topics",
        METADATA,
        [Ask(MetadataRequest(None, False)), Ask(MetadataRequest([], False))],
        range(1, 100),
    ),
    Scenario("metadata: all topics, in version 0", METADATA, [Ask(MetadataRequest([], False))], (0,)),
    Scenario(
        "metadata: by name", METADATA, [create("t", 3), create("u"), named("{t}", "{u}"), named("{u}", "{t}", "{t}")]
    ),
    Scenario(
        "metadata: wrong names",
        METADATA,
        [
            named("{t}"),
            named("in valid"),
            named(""),
            named("."),
            named("x" * 250),
            named("{t}", "a/b", "__consumer_offsets"),
        ],
        range(4, 100),
    ),
    Scenario(
        "metadata: automatic creation",
        METADATA,
        [
            named("{t}", auto=True),
            created("{t}"),
            named("in valid", auto=True),
            named("", auto=True),
            named("x" * 250, auto=True),
        ],
    ),
    Scenario(
        "metadata: automatic creation of several",
        METADATA,
        [named("{t}", "{u}", "a b", auto=True), created("{t}"), created("{u}")],
    ),
    Scenario(
        "metadata: automatic creation of colliding names",
        METADATA,
        [Ask(CreateTopicsRequest([CreatableTopic("a.b-{x}", 1, 1)], 10_000)), named("a_b-{x}", auto=True)],
        (4, 12),
    ),
    Scenario(
        "metadata: by id",
        METADATA,
        [
            create("t", 2),
            *(
                Ask(MetadataRequest([MetadataRequestTopic(topic_id, name)], False))  # type: ignore[arg-type]
                for topic_id in (Saved("t_id"), b"\7" * 16, ID)
                for name in (None, "{t}", "", "{u}")
            ),
        ],
        range(10, 100),
    ),
    Scenario("metadata: null name", METADATA, [named(None), named(None, "{t}")], range(10, 100)),
    Scenario(
        "metadata: authorized operations",
        METADATA,
        [
            create(),
            named("{t}", "{u}", include_topic_authorized_operations=True),
            named("{t}", include_cluster_authorized_operations=True),
        ],
    ),
    Scenario(
        "describe cluster",
        DESCRIBE_CLUSTER,
        [
            Ask(DescribeClusterRequest(with_operations, endpoint_type))
            for with_operations in (False, True)
            for endpoint_type in (1, 2, 0, 3)
        ],
    ),
    Scenario(
        "find coordinator: key types",
        FIND_COORDINATOR,
        [
            Ask(FindCoordinatorRequest(key, key_type, [key, "other"]))
            for key_type in (0, 3, -1, 2)
            for key in ("{g}", "", "ü" * 100)
        ],
    ),
    Scenario("find coordinator: no keys", FIND_COORDINATOR, [Ask(FindCoordinatorRequest("{g}", 0, []))]),
    Scenario(
        "find coordinator: a key twice", FIND_COORDINATOR, [Ask(FindCoordinatorRequest("{g}", 0, ["{g}", "{g}"]))]
    ),
    Scenario(
        "init producer id: without a transactional id",
        INIT_PRODUCER_ID,
        [
            Ask(InitProducerIdRequest(None, timeout), save={"pid": "producer_id"})
            for timeout in (60_000, 0, -1, 2**31 - 1)
        ],
    ),
    Scenario(
        "init producer id: with ids but no transactional id",
        INIT_PRODUCER_ID,
        [
            Ask(InitProducerIdRequest(None, 60_000, producer_id, epoch), save={"pid": "producer_id"})
            for producer_id, epoch in ((5000, -1), (-1, 5), (5000, 5))
        ],
    ),
    Scenario("init producer id: empty transactional id", INIT_PRODUCER_ID, [Ask(InitProducerIdRequest("", 60_000))]),
]
