"""Nodes that somebody else has damaged, or written by rules of their own: named once, never guessed at, never fatal to
a broker that runs.
"""

import json
import logging
import random
from collections.abc import Mapping
from functools import partial

import pytest
from store_conformance import run

from kpy.config import BrokerConfig
from kpy.controller.topics import TopicDefaults, plan_topic
from kpy.errors import StorageError
from kpy.metadata import znodes
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.store import NoNode
from kpy.topic_config import topic_config_problem
from kpy.wire.create_topics import CreatableTopic

RNG = random.Random(1)
GARBAGE = (None, b"", b"\xff", b"[]", b"{}", b'{"version":1}', b'{"version":99}', b"[" * 100_000)


def broker(**changes: object) -> bytes:
    registration = {"version": 5, "endpoints": ["PLAINTEXT://h:1"], "listener_security_protocol_map": {}, **changes}
    return json.dumps(registration).encode()


def topic(**changes: object) -> bytes:
    return json.dumps(
        {"version": 3, "topic_id": "AAAAAAAAAAAAAAAAAAAAAQ", "partitions": {"0": [1]}, **changes}
    ).encode()


def state(**changes: object) -> bytes:
    return json.dumps(
        {"version": 1, "leader": 1, "leader_epoch": 0, "isr": [1], "controller_epoch": 1, **changes}
    ).encode()


BAD: Mapping[str, tuple[bytes | None, ...]] = {
    "/brokers/ids/2": (
        *GARBAGE,
        broker(version=6),
        broker(endpoints=["PLAINTEXT://h:65536"]),
        broker(endpoints=["h:1"]),
        broker(endpoints=[f"PLAINTEXT://{'h' * 40_000}:1"]),
        broker(endpoints=["PLAINTEXT://\ud800:1"]),
        broker(listener_security_protocol_map={"PLAINTEXT": []}),
        broker(rack="r" * 40_000),
    ),
    "/brokers/topics/t": (
        *GARBAGE,
        topic(version=4),
        topic(topic_id="short"),
        topic(partitions={"0": []}),
        topic(partitions={"1": [1]}),
        topic(partitions={"0": [1 << 31]}),
        topic(partitions={"0": [-1]}),
        topic(partitions={"0": [True]}),
    ),
    "/brokers/topics/t/partitions/0/state": (
        *GARBAGE,
        state(version=2),
        state(leader=1 << 31),
        state(leader_epoch="0"),
        state(isr=[-1]),
    ),
    "/config/topics/t": (
        *(each for each in GARBAGE),
        b'{"version":2,"config":{}}',
        b'{"version":1,"config":{"retention.ms":7}}',
        b'{"version":1,"config":{"retention.ms":"long"}}',
        b'{"version":1,"config":{"cleanup.policy":"\\ud800"}}',
    ),
    "/config/brokers/1": GARBAGE,
    "/controller": (*GARBAGE, b'{"version":3,"brokerid":1}', b'{"version":1,"brokerid":4294967296}'),
}
"""What each path must not hold."""


def opened(store: EmbeddedStore) -> Cluster:
    problem = partial(topic_config_problem, broker=BrokerConfig.of({}))
    return run(
        Cluster.open(store, broker_id=1, rng=random.Random(1), now_ms=lambda: 1_000, topic_config_problem=problem)
    )


@pytest.fixture
def store() -> EmbeddedStore:
    return EmbeddedStore(None, lambda: 1_000)


@pytest.fixture
def cluster(store: EmbeddedStore) -> Cluster:
    cluster = opened(store)
    run(cluster.register({"PLAINTEXT": ("localhost", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))
    request = CreatableTopic(name="t", num_partitions=1, replication_factor=1)
    run(cluster.create_topics(lambda image: [plan_topic(request, image, (), TopicDefaults(1, 1), RNG)]))
    run(store.create("/brokers/ids/2", broker(), ephemeral=True))
    run(cluster.alter_configs("brokers", "1", lambda _: {"log.retention.ms": "7"}))
    return cluster


def nothing_happens(cluster: Cluster) -> None:
    """What others have written is read, and the controller decides on it."""
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))


def put(store: EmbeddedStore, path: str, data: bytes | None) -> None:
    try:
        run(store.set(path, data))
    except NoNode:
        run(store.create(path, data))


def named(caplog: pytest.LogCaptureFixture, path: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if f"holds at {path} what" in record.getMessage()]


@pytest.mark.parametrize("path", BAD)
def test_a_running_broker_names_it_once_and_keeps_what_it_knew(
    path: str, cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    before = cluster.image
    for data in BAD[path]:
        caplog.clear()
        put(store, path, data)
        nothing_happens(cluster)
        nothing_happens(cluster)
        assert len(named(caplog, path)) == 1, data
        assert not any(record.exc_info for record in caplog.records)
        # Who is the controller is the one thing that is not known any more; nobody takes the office by guessing.
        known = cluster.image
        assert (known.brokers, known.topics, known.broker_configs["1"]) == (
            before.brokers,
            before.topics,
            before.broker_configs["1"],
        )


@pytest.mark.parametrize("path", BAD)
def test_a_broker_does_not_start_on_it(path: str, cluster: Cluster, store: EmbeddedStore) -> None:
    for data in BAD[path]:
        put(store, path, data)
        with pytest.raises(StorageError, match=path):
            opened(store)


def test_names_that_no_broker_would_give_a_topic_come_to_nothing(
    cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a b", "x" * 250, "\N{SNOWMAN}"):
        run(store.create(f"/brokers/topics/{name}", topic()))
        nothing_happens(cluster)
        nothing_happens(cluster)
        assert len(named(caplog, f"/brokers/topics/{name}")) == 1
    assert list(cluster.image.topics) == ["t"]


def test_a_topic_config_that_kpy_does_not_know_has_no_effect(cluster: Cluster, store: EmbeddedStore) -> None:
    configs = {"new.in.kafka.9": "1", "retention.ms": "5"}
    run(store.set("/config/topics/t", znodes.encode_config(configs)))
    nothing_happens(cluster)
    assert cluster.image.topics["t"].configs == configs


@pytest.mark.parametrize("data", [b"", b"x", b"-1", b"2147483647", b"99999999999999"])
def test_without_a_controller_epoch_nobody_stands_for_the_office(
    data: bytes, cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    run(store.set("/controller_epoch", data))
    run(store.delete("/controller"))
    nothing_happens(cluster)
    nothing_happens(cluster)
    assert not cluster.is_controller
    assert len([each for each in caplog.records if "/controller_epoch" in each.getMessage()]) == 1
    other = opened(store)
    with pytest.raises(StorageError, match="/controller_epoch"):
        run(other.register({"PLAINTEXT": ("localhost", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))
    run(store.set("/controller_epoch", b"7"))
    nothing_happens(cluster)
    assert cluster.office.epoch == 8


def test_a_broker_that_has_never_been_controller_goes_on_without_a_controller_epoch(
    cluster: Cluster, store: EmbeddedStore
) -> None:
    other = opened(store)
    run(other.register({"PLAINTEXT": ("localhost", 9093)}, {"PLAINTEXT": "PLAINTEXT"}))
    assert cluster.is_controller
    assert not other.is_controller
    run(store.set("/controller_epoch", b"x"))
    run(store.delete("/controller"))
    nothing_happens(other)
    assert not other.is_controller


@pytest.mark.parametrize("data", [*GARBAGE, b'{"version":3,"status":1,"features":{}}'])
def test_features_that_cannot_be_understood_stop_a_start(
    data: bytes | None, cluster: Cluster, store: EmbeddedStore
) -> None:
    run(store.set("/feature", data))
    with pytest.raises(StorageError, match="/feature"):
        opened(store)


def test_a_cluster_with_features_that_kpy_lacks_is_not_joined(cluster: Cluster, store: EmbeddedStore) -> None:
    run(store.set("/feature", b'{"version":2,"status":0,"features":{"f":1}}'))
    opened(store)
    run(store.set("/feature", b'{"version":2,"status":1,"features":{"f":1}}'))
    with pytest.raises(StorageError, match="finalized features that kpy does not have: f"):
        opened(store)


def test_a_note_of_a_failed_disk_that_cannot_be_understood_is_passed_over(
    cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    run(store.create("/log_dir_event_notification/log_dir_event_", b"[]", sequential=True))
    nothing_happens(cluster)
    nothing_happens(cluster)
    assert [record.getMessage()[:12] for record in caplog.records] == ["passing over"]
    assert run(store.children("/log_dir_event_notification")) == []


def test_a_topic_on_brokers_that_do_not_exist_is_named_once_and_waits(
    cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    run(store.create("/brokers/topics/u", b'{"version":2,"partitions":{"0":[8,9],"1":[1,9]}}'))
    nothing_happens(cluster)
    nothing_happens(cluster)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        "u-0 has no leader yet: none of its replicas [8, 9] lives"
    ]
    assert "u" not in cluster.image.topics
    run(store.create("/brokers/ids/9", broker(), ephemeral=True))
    nothing_happens(cluster)
    first, second = cluster.image.topics["u"].partitions
    assert (first.leader, first.isr, second.leader, second.isr) == (9, (9,), 1, (1,))
