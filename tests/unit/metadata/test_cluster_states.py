"""Who reads the states of partitions, and when: a broker of several is not told of them until it is the controller."""

import random

import pytest
from store_conformance import run

from kpy.controller.topics import TopicDefaults, plan_topic
from kpy.metadata import znodes
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import NO_LEADER
from kpy.metadata.office import Candidature
from kpy.wire.create_topics import CreatableTopic

RNG = random.Random(1)
LISTENER = "PLAINTEXT"
STATE = znodes.partition_state_path("t", 0)


@pytest.fixture
def store() -> EmbeddedStore:
    return EmbeddedStore(None)


@pytest.fixture
def first(store: EmbeddedStore) -> Cluster:
    """The controller."""
    return joined(store, 1)


@pytest.fixture
def second(store: EmbeddedStore, first: Cluster) -> Cluster:
    create(first, "t")
    return joined(store, 2)


def joined(store: EmbeddedStore, broker_id: int) -> Cluster:
    opened = Cluster.open(
        store, broker_id=broker_id, rng=RNG, now_ms=lambda: 1000, candidature=Candidature(listener=LISTENER)
    )
    cluster = run(opened)
    run(cluster.register({LISTENER: ("localhost", 9092 + broker_id)}, {LISTENER: "PLAINTEXT"}))
    return cluster


def create(cluster: Cluster, name: str) -> None:
    request = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
    run(cluster.create_topics(lambda image: [plan_topic(request, image, (), TopicDefaults(1, 1), RNG)]))


async def catch_up(cluster: Cluster) -> None:
    async with cluster.changing():
        pass


def set_leader_epoch(store: EmbeddedStore, leader_epoch: int) -> None:
    run(store.set(STATE, znodes.encode_partition_state(znodes.PartitionState(1, leader_epoch, (1,), 1))))


def test_a_changed_state_is_told_to_no_broker(second: Cluster, store: EmbeddedStore) -> None:
    told: list[str] = []
    store.on_change = told.append
    set_leader_epoch(store, 7)
    assert told == []
    assert not second.is_controller


def test_a_state_that_comes_later_than_its_topic_is_seen(second: Cluster, store: EmbeddedStore) -> None:
    run(store.create(znodes.topic_path("later"), run(store.get(znodes.topic_path("t"))).data))
    run(catch_up(second))
    assert "later" not in second.stored.topics
    state = run(store.get(STATE)).data
    for path in (znodes.partitions_path("later"), znodes.partition_path("later", 0)):
        run(store.create(path))
    run(store.create(znodes.partition_state_path("later", 0), state))
    run(catch_up(second))
    assert "later" in second.stored.topics


def test_a_new_controller_decides_on_states_as_they_are_now(second: Cluster, store: EmbeddedStore) -> None:
    set_leader_epoch(store, 7)
    run(store.delete(znodes.CONTROLLER))
    run(catch_up(second))
    assert second.is_controller
    assert second.stored.topics["t"].partitions[0].leader_epoch == 7


def test_a_new_controller_knows_that_the_old_one_is_gone_before_it_tells_anybody_who_leads(
    second: Cluster, store: EmbeddedStore
) -> None:
    """The session of a dead broker ends with both of its nodes, whose watches arrive one after the other."""
    run(catch_up(second))
    tell = store.on_change
    store.on_change = lambda path: tell(path) if path == znodes.CONTROLLER else None
    run(store.delete(znodes.broker_path(1)))
    run(store.delete(znodes.CONTROLLER))
    run(catch_up(second))
    assert second.office.requests is not None
    assert set(second.office.requests.brokers) == {2}
    assert second.stored.topics["t"].partitions[0].leader == NO_LEADER
