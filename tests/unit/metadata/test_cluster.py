"""The cluster: what it writes, what it reads back, and that the image, the store and the listener agree."""

import json
import random
from pathlib import Path

import pytest
from store_conformance import run

from kpy import ids
from kpy.controller.topics import TopicDefaults, plan_partitions, plan_topic
from kpy.errors import ApiError, ErrorCode, StorageError
from kpy.metadata import znodes
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import BrokerImage, MetadataImage, TopicImage
from kpy.metadata.leader_elections import start_leader_epochs
from kpy.metadata.store import MetadataStore
from kpy.wire.create_partitions import CreatePartitionsTopic
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig

BROKER_ID = 1
RNG = random.Random(1)


def open_cluster(store: MetadataStore, *, cluster_id: str | None = None) -> Cluster:
    cluster = run(Cluster.open(store, broker_id=BROKER_ID, rng=RNG, now_ms=lambda: 1000, cluster_id=cluster_id))
    run(cluster.register({"PLAINTEXT": ("localhost", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))
    return cluster


@pytest.fixture
def store() -> EmbeddedStore:
    return EmbeddedStore(None)


@pytest.fixture
def cluster(store: EmbeddedStore) -> Cluster:
    return open_cluster(store)


def planned(cluster: Cluster, name: str, partitions: int = 1, **configs: str) -> TopicImage:
    request = CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=1,
        configs=[CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()],
    )
    return plan_topic(request, cluster.image, (), TopicDefaults(1, 1), RNG)


def create(cluster: Cluster, name: str, partitions: int = 1, **configs: str) -> TopicImage:
    topic = planned(cluster, name, partitions, **configs)
    run(cluster.create_topics(lambda _: [topic]))
    return topic


def reopened(store: MetadataStore) -> Cluster:
    return run(Cluster.open(store, broker_id=BROKER_ID, rng=RNG, now_ms=lambda: 1000))


def restarted(store: MetadataStore) -> Cluster:
    """The next life of the broker: its session has ended, so the office of controller is free again."""
    run(store.delete("/controller"))
    return open_cluster(store)


def test_a_first_start_makes_kafkas_layout(store: EmbeddedStore) -> None:
    open_cluster(store, cluster_id="VUJmE3lXTTqs0g9LRGRJbQ")
    assert json.loads(run(store.get("/cluster/id")).data or b"") == {"version": "1", "id": "VUJmE3lXTTqs0g9LRGRJbQ"}
    for path in ("/brokers/topics", "/config/topics", "/config/brokers", "/admin/delete_topics", "/consumers"):
        assert run(store.get(path)).data is None
    assert run(store.get("/latest_producer_id_block")).data is None


def test_the_cluster_id_stays(store: EmbeddedStore) -> None:
    first = open_cluster(store)
    assert len(ids.from_text(first.image.cluster_id)) == ids.ID_SIZE
    second = open_cluster(store, cluster_id="VUJmE3lXTTqs0g9LRGRJbQ")
    assert second.image.cluster_id == first.image.cluster_id


def test_registering_puts_the_broker_into_image_and_store(store: EmbeddedStore) -> None:
    cluster = run(Cluster.open(store, broker_id=7, rng=RNG, now_ms=lambda: 1000))
    assert cluster.image.brokers == {}
    seen: list[MetadataImage] = []
    cluster.on_change = seen.append
    run(cluster.register({"IN": ("10.0.0.1", 9092)}, {"IN": "SSL"}, rack="r1"))
    epoch = run(store.get("/brokers/ids/7")).czxid
    assert cluster.image.brokers == {7: BrokerImage(7, "r1", {"IN": ("10.0.0.1", 9092)}, epoch, {"IN": "SSL"})}
    assert cluster.image.controller_id == 7
    assert seen == [cluster.image]
    assert json.loads(run(store.get("/brokers/ids/7")).data or b"")["endpoints"] == ["IN://10.0.0.1:9092"]


def test_registering_again_changes_the_endpoints(cluster: Cluster) -> None:
    run(cluster.register({"PLAINTEXT": ("other", 1)}, {"PLAINTEXT": "PLAINTEXT"}))
    assert cluster.image.brokers[BROKER_ID].endpoints == {"PLAINTEXT": ("other", 1)}


def test_brokers_that_are_registered_already_are_in_the_image(store: EmbeddedStore) -> None:
    first = open_cluster(store)
    second = run(Cluster.open(store, broker_id=2, rng=RNG, now_ms=lambda: 1000))
    assert second.image.brokers == first.image.brokers
    run(second.register({"PLAINTEXT": ("two", 1)}, {"PLAINTEXT": "PLAINTEXT"}))
    assert list(second.image.brokers) == [1, 2]


def test_a_created_topic_is_written_as_kafka_does(cluster: Cluster, store: EmbeddedStore) -> None:
    topic = create(cluster, "t", 2, retention_ms="1000")
    nodes = {path: node.data for path, node in run(store.tree("/brokers/topics")).items()}
    assert {path for path, data in nodes.items() if data is None} == {
        "/brokers/topics",
        "/brokers/topics/t/partitions",
        "/brokers/topics/t/partitions/0",
        "/brokers/topics/t/partitions/1",
    }
    assert json.loads(nodes["/brokers/topics/t"] or b"") == {
        "version": 3,
        "topic_id": ids.to_text(topic.topic_id),
        "partitions": {"0": [1], "1": [1]},
        "adding_replicas": {},
        "removing_replicas": {},
    }
    for partition in (0, 1):
        state = json.loads(nodes[f"/brokers/topics/t/partitions/{partition}/state"] or b"")
        assert state == {"version": 1, "leader": 1, "leader_epoch": 0, "controller_epoch": 1, "isr": [1]}
    configs = json.loads(run(store.get("/config/topics/t")).data or b"")
    assert configs == {"version": 1, "config": {"retention.ms": "1000"}}


def test_each_change_gives_the_listener_one_new_image(cluster: Cluster) -> None:
    seen: list[MetadataImage] = []
    before = cluster.image
    cluster.on_change = seen.append
    topics = [planned(cluster, "a"), planned(cluster, "b", 3)]
    run(cluster.create_topics(lambda _: topics))
    assert seen == [cluster.image]
    assert cluster.image.topics == {"a": topics[0], "b": topics[1]}
    assert cluster.image.topic_names == {topics[0].topic_id: "a", topics[1].topic_id: "b"}
    assert before.topics == {}


def test_a_restart_reads_the_same_image(store: EmbeddedStore) -> None:
    cluster = open_cluster(store)
    create(cluster, "one", 3)
    create(cluster, "two", 1, cleanup_policy="compact")
    create(cluster, "gone")
    run(cluster.delete_topics(lambda _: ["gone"]))
    run(cluster.create_partitions(lambda image: [plan_partitions(CreatePartitionsTopic("two", 4, None), image, RNG)]))
    run(cluster.alter_configs("topics", "one", lambda _: {"retention.ms": "5"}))
    run(cluster.alter_configs("brokers", "", lambda _: {"log.retention.ms": "6"}))
    run(cluster.alter_configs("brokers", "1", lambda _: {"log.retention.ms": "7"}))
    again = reopened(store)
    assert again.image.topics == cluster.image.topics
    assert again.image.topic_names == cluster.image.topic_names
    assert again.image.broker_configs == {"": {"log.retention.ms": "6"}, "1": {"log.retention.ms": "7"}}
    assert again.image.cluster_id == cluster.image.cluster_id
    assert [partition.partition for partition in again.image.topics["two"].partitions] == [0, 1, 2, 3]


def test_partitions_are_read_in_the_order_of_numbers(store: EmbeddedStore) -> None:
    create(open_cluster(store), "t", 12)
    partitions = reopened(store).image.topics["t"].partitions
    assert [partition.partition for partition in partitions] == list(range(12))


def test_a_topic_created_twice_changes_nothing(cluster: Cluster) -> None:
    first = create(cluster, "t")
    image = cluster.image
    twin = TopicImage("t", ids.new_id(RNG), first.partitions)
    with pytest.raises(ApiError) as caught:
        run(cluster.create_topics(lambda _: [twin]))
    assert caught.value.code == ErrorCode.REQUEST_TIMED_OUT
    assert cluster.image is image


def test_a_config_node_that_is_there_already_is_replaced(cluster: Cluster, store: EmbeddedStore) -> None:
    run(store.create("/config/topics/t", znodes.encode_config({"retention.ms": "1"})))
    create(cluster, "t")
    assert znodes.decode_config(run(store.get("/config/topics/t")).data) == {}


def test_deleting_leaves_no_node(cluster: Cluster, store: EmbeddedStore) -> None:
    create(cluster, "t", 3)
    create(cluster, "t-other")
    seen: list[MetadataImage] = []
    cluster.on_change = seen.append
    run(cluster.delete_topics(lambda _: ["t"]))
    assert run(store.children("/brokers/topics")) == ["t-other"]
    assert run(store.children("/config/topics")) == ["t-other"]
    assert list(cluster.image.topics) == ["t-other"]
    assert list(cluster.image.topic_names.values()) == ["t-other"]
    assert len(seen) == 1


def test_a_recreated_topic_has_another_id(cluster: Cluster) -> None:
    first = create(cluster, "t")
    run(cluster.delete_topics(lambda _: ["t"]))
    assert create(cluster, "t").topic_id != first.topic_id


def test_added_partitions_leave_the_old_ones_alone(cluster: Cluster, store: EmbeddedStore) -> None:
    topic = create(cluster, "t", 2)
    state_version = run(store.get("/brokers/topics/t/partitions/0/state")).version
    run(cluster.create_partitions(lambda image: [plan_partitions(CreatePartitionsTopic("t", 3, None), image, RNG)]))
    grown = cluster.image.topics["t"]
    assert grown.topic_id == topic.topic_id
    assert grown.partitions[:2] == topic.partitions
    assert len(grown.partitions) == 3
    assert run(store.get("/brokers/topics/t/partitions/0/state")).version == state_version
    assert run(store.find("/brokers/topics/t/partitions/2/state")) is not None


def test_configs_are_replaced_and_not_merged(cluster: Cluster) -> None:
    create(cluster, "t", 1, retention_ms="1", segment_bytes="2")
    run(cluster.alter_configs("topics", "t", lambda _: {"retention.ms": "3"}))
    assert cluster.image.topics["t"].configs == {"retention.ms": "3"}


def test_a_handed_in_mapping_is_copied(cluster: Cluster) -> None:
    create(cluster, "t")
    overrides = {"retention.ms": "3"}
    run(cluster.alter_configs("topics", "t", lambda _: overrides))
    overrides.clear()
    assert cluster.image.topics["t"].configs == {"retention.ms": "3"}


def test_an_internal_topic_is_created_once(cluster: Cluster) -> None:
    first = run(cluster.create_internal_topic("__consumer_offsets", 5, 1, {"cleanup.policy": "compact"}))
    assert len(first.partitions) == 5
    assert first.configs == {"cleanup.policy": "compact"}
    assert run(cluster.create_internal_topic("__consumer_offsets", 50, 1, {})) is first


def test_an_internal_topic_with_more_replicas_than_brokers_is_refused(cluster: Cluster) -> None:
    with pytest.raises(ApiError) as caught:
        run(cluster.create_internal_topic("__consumer_offsets", 5, 3, {}))
    assert caught.value.code == ErrorCode.INVALID_REPLICATION_FACTOR


def test_leader_epochs_rise_after_an_unclean_stop(store: EmbeddedStore) -> None:
    create(open_cluster(store), "t", 2)
    cluster = restarted(store)
    run(start_leader_epochs(cluster, BROKER_ID))
    assert [partition.leader_epoch for partition in cluster.image.topics["t"].partitions] == [1, 1]
    assert reopened(store).image.topics == cluster.image.topics


def test_leader_epochs_rise_in_one_change(cluster: Cluster) -> None:
    create(cluster, "a", 2)
    create(cluster, "b")
    seen: list[MetadataImage] = []
    cluster.on_change = seen.append
    run(start_leader_epochs(cluster, BROKER_ID))
    assert len(seen) == 1


def test_leader_epochs_of_other_leaders_stay(store: EmbeddedStore) -> None:
    cluster = open_cluster(store)
    create(cluster, "t")
    other = run(Cluster.open(store, broker_id=2, rng=RNG, now_ms=lambda: 1000))
    image = other.image
    run(start_leader_epochs(other, 2))
    assert other.image is image


def test_producer_ids_come_in_blocks_that_a_restart_does_not_share(store: EmbeddedStore) -> None:
    cluster = open_cluster(store)
    assert [run(cluster.producer_ids.next()) for _ in range(1001)] == list(range(1001))
    assert json.loads(run(store.get("/latest_producer_id_block")).data or b"") == {
        "version": 1,
        "broker": 1,
        "block_start": "1000",
        "block_end": "1999",
    }
    assert run(reopened(store).producer_ids.next()) == 2000
    assert run(cluster.producer_ids.next()) == 1001


def test_a_block_of_another_broker_is_skipped(cluster: Cluster, store: EmbeddedStore) -> None:
    run(store.set("/latest_producer_id_block", znodes.encode_producer_id_block(znodes.ProducerIdBlock(2, 5000, 5999))))
    assert run(cluster.producer_ids.allocate(BROKER_ID)) == range(6000, 7000)


def test_the_last_producer_id_is_never_passed(cluster: Cluster, store: EmbeddedStore) -> None:
    block = znodes.ProducerIdBlock(1, 2**63 - 2000, 2**63 - 500)
    run(store.set("/latest_producer_id_block", znodes.encode_producer_id_block(block)))
    with pytest.raises(ApiError) as caught:
        run(cluster.producer_ids.next())
    assert caught.value.code == ErrorCode.UNKNOWN_SERVER_ERROR


@pytest.mark.parametrize(
    "path",
    [
        "/cluster/id",
        "/brokers/topics/t",
        "/brokers/topics/t/partitions/0/state",
        "/config/topics/t",
        "/config/brokers/<default>",
    ],
)
def test_damaged_nodes_are_named(path: str, store: EmbeddedStore) -> None:
    cluster = open_cluster(store)
    create(cluster, "t")
    run(cluster.alter_configs("brokers", "", lambda _: {}))
    run(store.set(path, b'{"version":1}'))
    with pytest.raises(StorageError, match=path):
        reopened(store)


def test_a_partition_without_a_state_is_new_to_the_next_controller(store: EmbeddedStore) -> None:
    topic = create(open_cluster(store), "t", 2)
    run(store.delete("/brokers/topics/t/partitions/1/state"))
    assert len(reopened(store).image.topics["t"].partitions) == 1
    assert restarted(store).image.topics["t"] == topic


def test_a_topic_without_a_config_node_has_no_configs(store: EmbeddedStore) -> None:
    create(open_cluster(store), "t")
    run(store.delete("/config/topics/t"))
    cluster = restarted(store)
    assert cluster.image.topics["t"].configs == {}
    run(cluster.delete_topics(lambda _: ["t"]))
    assert cluster.image.topics == {}


def test_closing_ends_the_registration(tmp_path: Path) -> None:
    cluster = open_cluster(EmbeddedStore(tmp_path / "metadata.db"))
    run(cluster.close())
    store = EmbeddedStore(tmp_path / "metadata.db")
    assert run(store.children("/brokers/ids")) == []
    run(store.close())
