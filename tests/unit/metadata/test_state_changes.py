"""New leaders and ISRs of many partitions: few transactions, and whoever was faster with one holds up no others."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from store_conformance import run

from kpy.controller.topics import TopicDefaults, plan_topic
from kpy.errors import ApiError, ErrorCode
from kpy.metadata import writes, znodes
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import NO_LEADER, PartitionImage
from kpy.metadata.leader_elections import start_leader_epochs
from kpy.metadata.office import Candidature
from kpy.metadata.state_changes import Verdict, Verdicts, change_states
from kpy.metadata.store import Op, SetData
from kpy.wire.create_topics import CreatableTopic

RNG = random.Random(1)
LISTENER = "PLAINTEXT"
TOPICS = ("a", "b", "c")
PARTITIONS = 3


class RecordingStore(EmbeddedStore):
    """Keeps which states each transaction has tried to write; before the next one `interfere` may change something."""

    def __init__(self) -> None:
        super().__init__(None)
        self.tried: list[list[str]] = []
        self.changed_before: list[str] = []

    async def multi(self, ops: Sequence[Op]) -> None:
        states = [op.path for op in ops if isinstance(op, SetData) and op.path.endswith("/state")]
        if states:
            self.tried.append(states)
            while self.changed_before:
                path = self.changed_before.pop()
                await self.set(path, (await self.get(path)).data)
        await super().multi(ops)


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture
def cluster(store: RecordingStore) -> Cluster:
    """The controller, with three topics on it and another broker, which leads nothing."""
    cluster = joined(store, 1)
    joined(store, 2)
    run(catch_up(cluster))
    for name in TOPICS:
        create(cluster, name, PARTITIONS)
    return cluster


def joined(store: EmbeddedStore, broker_id: int) -> Cluster:
    opened = Cluster.open(
        store, broker_id=broker_id, rng=RNG, now_ms=lambda: 1000, candidature=Candidature(listener=LISTENER)
    )
    cluster = run(opened)
    run(cluster.register({LISTENER: ("localhost", 9092 + broker_id)}, {LISTENER: "PLAINTEXT"}))
    return cluster


def create(cluster: Cluster, name: str, partitions: int) -> None:
    request = CreatableTopic(name=name, num_partitions=partitions, replication_factor=2)
    run(cluster.create_topics(lambda image: [plan_topic(request, image, (), TopicDefaults(1, 2), RNG)]))


async def catch_up(cluster: Cluster) -> None:
    async with cluster.changing():
        pass


def state_paths(*topics: str) -> list[str]:
    return [znodes.partition_state_path(topic, index) for topic in topics for index in range(PARTITIONS)]


def all_partitions(cluster: Cluster) -> list[PartitionImage]:
    return [partition for name in TOPICS for partition in cluster.stored.topics[name].partitions]


def let_go(store: EmbeddedStore, cluster: Cluster, broker_id: int) -> None:
    run(store.delete(znodes.broker_path(broker_id)))
    cluster._node_changed(znodes.BROKER_IDS)
    run(catch_up(cluster))


def test_leaders_of_all_topics_are_elected_in_one_transaction(cluster: Cluster, store: RecordingStore) -> None:
    let_go(store, cluster, 2)
    assert [sorted(states) for states in store.tried] == [state_paths(*TOPICS)]
    assert {(each.leader, each.isr) for each in all_partitions(cluster)} == {(1, (1,))}


def test_a_transaction_has_a_bound(cluster: Cluster, store: RecordingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_OPS", 4)
    let_go(store, cluster, 2)
    assert [len(states) for states in store.tried] == [4, 4, 1]
    assert {each.isr for each in all_partitions(cluster)} == {(1,)}


def test_a_state_that_somebody_else_has_changed_is_decided_anew_and_holds_up_nothing(
    cluster: Cluster, store: RecordingStore
) -> None:
    store.changed_before = [znodes.partition_state_path("b", 1)]
    let_go(store, cluster, 2)
    assert [sorted(states) for states in store.tried] == [
        state_paths(*TOPICS),
        state_paths("a", "c"),
        state_paths("b"),
    ]
    assert {each.isr for each in all_partitions(cluster)} == {(1,)}
    epochs = [each.partition_epoch for each in all_partitions(cluster)]
    assert epochs == [1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_topics_that_all_have_been_changed_are_all_decided_anew(cluster: Cluster, store: RecordingStore) -> None:
    store.changed_before = state_paths(*TOPICS)
    let_go(store, cluster, 2)
    assert len(store.tried) == len(TOPICS) + 1
    assert {(each.isr, each.partition_epoch) for each in all_partitions(cluster)} == {((1,), 2)}


def demote(_: str, index: int, known: PartitionImage | None) -> Verdict:
    assert known is not None
    if index == 0:
        return ApiError(ErrorCode.ELECTION_NOT_NEEDED)
    return replace(known, leader=NO_LEADER, partition_epoch=known.partition_epoch + 1)


def test_who_asks_for_changes_of_several_topics_gets_a_verdict_on_each_partition(
    cluster: Cluster, store: RecordingStore
) -> None:
    store.changed_before = [znodes.partition_state_path("b", 1)]

    async def change() -> Verdicts:
        async with cluster.changing():
            return await change_states(cluster, {"b": [0, 1], "a": [1, 2]}, demote)

    verdicts = run(change())
    assert list(verdicts) == ["b", "a"]
    refusal, changed = verdicts["b"][0], verdicts["b"][1]
    assert isinstance(refusal, ApiError)
    assert isinstance(changed, PartitionImage)
    assert changed.partition_epoch == 2
    elected_again = [3]
    assert [len(states) for states in store.tried] == [3, 2, 1, *elected_again]


def test_a_controller_that_was_replaced_writes_no_state(cluster: Cluster, store: RecordingStore) -> None:
    run(store.set(znodes.CONTROLLER_EPOCH, b"7"))

    async def change() -> None:
        async with cluster.changing():
            await change_states(cluster, {name: [1] for name in TOPICS}, demote)

    with pytest.raises(ApiError) as caught:
        run(change())
    assert caught.value.code == ErrorCode.NOT_CONTROLLER
    assert len(store.tried) == 1
    assert all(run(store.get(path)).version == 0 for path in state_paths(*TOPICS))


def test_leader_epochs_of_all_topics_rise_in_one_transaction(cluster: Cluster, store: RecordingStore) -> None:
    led = [each for each in all_partitions(cluster) if each.leader == 1]
    run(start_leader_epochs(cluster, 1))
    assert [len(states) for states in store.tried] == [len(led)]
    assert {each.leader_epoch for each in all_partitions(cluster) if each.leader == 1} == {1}
    assert {each.leader_epoch for each in all_partitions(cluster) if each.leader == 2} <= {0}
