"""The cluster when it is not alone: what others write into the store, between an operation's plan and its write too."""

import json
import random
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import pytest
from store_conformance import run

from kpy.controller.topics import TopicDefaults, plan_partitions, plan_topic
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.metadata import writes, znodes
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import MetadataImage, TopicImage
from kpy.wire.create_partitions import CreatePartitionsTopic
from kpy.wire.create_topics import CreatableTopic

RNG = random.Random(1)

TOOL_TOPIC = b'{"version":2,"partitions":{"0":[1],"1":[1]},"adding_replicas":{},"removing_replicas":{}}'
"""What Kafka 2.8's kafka-topics --zookeeper writes."""


class Clock:
    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> EmbeddedStore:
    return EmbeddedStore(None, clock)


@pytest.fixture
def cluster(store: EmbeddedStore, clock: Clock) -> Cluster:
    cluster = run(Cluster.open(store, broker_id=1, rng=RNG, now_ms=clock))
    run(cluster.register({"PLAINTEXT": ("localhost", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))
    return cluster


def plan(image: MetadataImage, name: str = "t", partitions: int = 1) -> Sequence[TopicImage]:
    request = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1)
    return [plan_topic(request, image, (), TopicDefaults(1, 1), RNG)]


def take_over(store: EmbeddedStore, broker_id: int) -> None:
    """Another broker is elected."""
    run(store.delete(znodes.CONTROLLER))
    epoch = znodes.decode_controller_epoch(run(store.get(znodes.CONTROLLER_EPOCH)).data)
    run(store.set(znodes.CONTROLLER_EPOCH, znodes.encode_controller_epoch(epoch + 1)))
    run(store.create(znodes.CONTROLLER, znodes.encode_controller(broker_id, 0)))


def test_a_topic_that_somebody_else_has_just_created_exists(cluster: Cluster, store: EmbeddedStore) -> None:
    def slow_plan(image: MetadataImage) -> Sequence[TopicImage]:
        planned = plan(image)
        drive(store.create("/brokers/topics/t", TOOL_TOPIC))
        return planned

    with pytest.raises(ApiError) as caught:
        run(cluster.create_topics(slow_plan))
    assert caught.value.code == ErrorCode.TOPIC_ALREADY_EXISTS
    assert len(cluster.image.topics["t"].partitions) == 2
    assert cluster.image.topics["t"].topic_id in cluster.image.topic_names


def test_partitions_that_somebody_else_has_just_added_are_counted(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(plan))
    plans = 0

    def slow_plan(image: MetadataImage) -> Sequence[TopicImage]:
        nonlocal plans
        plans += 1
        planned = plan_partitions(CreatePartitionsTopic("t", 3, None), image, RNG)
        if plans == 1:
            node = run_nested(store, "/brokers/topics/t")
            node["partitions"]["1"] = [1]
            drive(store.set("/brokers/topics/t", json.dumps(node).encode()))
        return [planned]

    run(cluster.create_partitions(slow_plan))
    assert plans == 2
    assert len(cluster.image.topics["t"].partitions) == 3
    assert len(znodes.decode_topic(run(store.get("/brokers/topics/t")).data).replicas) == 3


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of an operation of the embedded store inside another one: it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


def run_nested(store: EmbeddedStore, path: str) -> dict[str, dict[str, list[int]]]:
    document: dict[str, dict[str, list[int]]] = json.loads(drive(store.get(path)).data)
    return document


def test_a_config_that_somebody_else_has_just_set_is_not_lost(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(plan))
    changes = 0

    def change(overrides: Mapping[str, str]) -> Mapping[str, str]:
        nonlocal changes
        changes += 1
        if changes == 1:
            drive(store.set("/config/topics/t", znodes.encode_config({"segment.bytes": "5000"})))
        return {**overrides, "retention.ms": "7"}

    run(cluster.alter_configs("topics", "t", change))
    assert cluster.image.topics["t"].configs == {"segment.bytes": "5000", "retention.ms": "7"}
    assert znodes.decode_config(run(store.get("/config/topics/t")).data) == cluster.image.topics["t"].configs


def test_a_controller_that_was_replaced_writes_nothing_more(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(plan))
    store.on_change = lambda path: None  # It has not heard of the election yet.
    take_over(store, 2)
    assert cluster.is_controller
    for operation in (
        cluster.create_topics(lambda image: plan(image, "u")),
        cluster.delete_topics(lambda image: ["t"]),
        cluster.create_partitions(lambda image: [plan_partitions(CreatePartitionsTopic("t", 2, None), image, RNG)]),
    ):
        with pytest.raises(ApiError) as caught:
            run(operation)
        assert caught.value.code == ErrorCode.NOT_CONTROLLER
        assert not cluster.is_controller
    assert run(store.children("/brokers/topics")) == ["t"]
    assert run(store.children("/admin/delete_topics")) == []


def test_a_controller_that_was_replaced_leaves_notes_of_failed_disks_to_its_successor(
    cluster: Cluster, store: EmbeddedStore
) -> None:
    run(cluster.tell_of_log_dir_failure())
    epoch = znodes.decode_controller_epoch(run(store.get(znodes.CONTROLLER_EPOCH)).data)
    run(store.set(znodes.CONTROLLER_EPOCH, znodes.encode_controller_epoch(epoch + 1)))
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert not cluster.is_controller
    assert len(run(store.children(znodes.LOG_DIR_EVENTS))) == 1


def test_a_controller_that_hears_of_its_successor_resigns(cluster: Cluster, store: EmbeddedStore) -> None:
    take_over(store, 2)
    run(cluster.producer_ids.next())
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert not cluster.is_controller
    assert cluster.image.controller_id == 2
    run(store.delete(znodes.CONTROLLER))
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert cluster.is_controller
    assert cluster.image.controller_id == 1
    assert run(store.get(znodes.CONTROLLER_EPOCH)).data == b"3"


def test_an_office_that_was_won_before_the_end_of_the_last_session_was_told_is_kept(
    cluster: Cluster, store: EmbeddedStore
) -> None:
    run(store.delete(znodes.CONTROLLER))  # The session has ended, which an operation under way does not know.
    run(store.delete(znodes.broker_path(1)))
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert cluster.office.epoch == 2
    store.on_session()
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert cluster.office.epoch == 2
    assert list(cluster.image.brokers) == [1]


def test_an_office_of_a_session_that_has_ended_is_not_held_any_more(
    cluster: Cluster, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedStore, "session_id", 2)
    store.on_session()
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert not cluster.is_controller
    run(store.delete(znodes.CONTROLLER))  # As the store does, in the end.
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))


def test_other_brokers_leave_states_to_the_controller(cluster: Cluster, store: EmbeddedStore) -> None:
    take_over(store, 2)
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    run(cluster.create_topics(plan))
    assert "t" not in cluster.image.topics
    assert run(store.children("/brokers/topics/t")) == []
    run(cluster.create_topics(plan))  # Somebody asks again before the controller has seen it.
    with pytest.raises(ApiError) as caught:
        run(cluster.create_internal_topic("__consumer_offsets", 1, 1, {}))
    assert caught.value.code == ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_notes_of_config_changes_are_cleared_away_when_all_have_read_them(
    cluster: Cluster, store: EmbeddedStore, clock: Clock
) -> None:
    for later_ms in (0, 1, writes.CONFIG_CHANGE_EXPIRATION_MS):
        clock.now_ms += later_ms
        run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert run(store.children("/config/changes")) == ["config_change_0000000001", "config_change_0000000002"]


def test_a_cluster_on_its_way_to_kraft_is_not_joined(store: EmbeddedStore, clock: Clock) -> None:
    run(Cluster.open(store, broker_id=1, rng=RNG, now_ms=clock))
    run(store.create("/controller", b'{"version":2,"brokerid":3000,"timestamp":"1","kraftControllerEpoch":4}'))
    with pytest.raises(StorageError, match="on its way to KRaft"):
        run(Cluster.open(store, broker_id=1, rng=RNG, now_ms=clock))


def test_a_broker_with_the_address_of_another_is_refused(cluster: Cluster, store: EmbeddedStore, clock: Clock) -> None:
    second = run(Cluster.open(store, broker_id=2, rng=RNG, now_ms=clock))
    with pytest.raises(StorageError, match="broker 1 has registered localhost:9092"):
        run(second.register({"IN": ("localhost", 9092)}, {"IN": "PLAINTEXT"}))


def test_a_large_topic_is_written_and_deleted_in_several_transactions(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(lambda image: plan(image, "large", 1500)))
    assert len(cluster.image.topics["large"].partitions) == 1500
    assert len(run(store.children("/brokers/topics/large/partitions"))) == 1500
    run(cluster.delete_topics(lambda image: ["large"]))
    assert run(store.children("/brokers/topics")) == []
    assert run(store.children("/config/topics")) == []


def test_a_store_that_was_emptied_stops_the_broker_and_deletes_no_topic(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(plan))
    images: list[MetadataImage] = []
    cluster.on_change = images.append
    run(store.delete("/cluster/id"))
    store.on_change("/")  # As after a lost connection.
    with pytest.raises(StorageError, match="another cluster id"):
        run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    run(store.create("/cluster/id", znodes.encode_cluster_id("VUJmE3lXTTqs0g9LRGRJbQ")))
    with pytest.raises(StorageError, match="VUJmE3lXTTqs0g9LRGRJbQ"):
        run(cluster.alter_configs("brokers", "", lambda overrides: overrides))
    assert images == []


def test_what_cannot_be_understood_is_not_written_over(cluster: Cluster, store: EmbeddedStore) -> None:
    run(cluster.create_topics(plan))
    for path, operation in (
        ("/config/topics/t", cluster.alter_configs("topics", "t", lambda overrides: overrides)),
        (
            "/brokers/topics/t",
            cluster.create_partitions(lambda image: [plan_partitions(CreatePartitionsTopic("t", 2, None), image, RNG)]),
        ),
    ):
        run(store.set(path, b'{"version":9}'))
        with pytest.raises(ApiError, match="newer than"):
            run(operation)
        assert run(store.get(path)).data == b'{"version":9}'
    assert len(cluster.image.topics["t"].partitions) == 1
