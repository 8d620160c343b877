"""What old tools write into ZooKeeper for the controller: reassignments and preferred elections."""

import json
import random
from dataclasses import replace

import pytest
from store_conformance import run

from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import PartitionImage
from kpy.metadata.partition_reassignments import reassign
from kpy.metadata.state_changes import change_states
from kpy.metadata.store import MetadataStore

REASSIGNMENTS, ELECTIONS = "/admin/reassign_partitions", "/admin/preferred_replica_election"


@pytest.fixture
def store() -> EmbeddedStore:
    return EmbeddedStore(None, lambda: 1_000)


@pytest.fixture
def cluster(store: EmbeddedStore) -> Cluster:
    """Three brokers; each of the two partitions of `t` is on 1 and 2, and 1 leads."""
    cluster = run(Cluster.open(store, broker_id=1, rng=random.Random(1), now_ms=lambda: 1_000))
    for broker_id in (1, 2, 3):
        data = b'{"version":5,"endpoints":["PLAINTEXT://h:%d"]}' % broker_id
        if broker_id > 1:
            run(store.create(f"/brokers/ids/{broker_id}", data, ephemeral=True))
    run(cluster.register({"PLAINTEXT": ("localhost", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))
    run(store.create("/brokers/topics/t", b'{"version":2,"partitions":{"0":[1,2],"1":[1,2]}}'))
    look(cluster)
    return cluster


def look(cluster: Cluster) -> None:
    """What others have written is read, and the controller decides on it."""
    run(cluster.alter_configs("brokers", "", lambda overrides: overrides))


def asked(store: MetadataStore, path: str = REASSIGNMENTS) -> list[dict[str, object]] | None:
    """The partitions in the node, None without one."""
    node = run(store.find(path))
    return None if node is None else json.loads(node.data or b"")["partitions"]


def target(topic: str, index: int, *replicas: int) -> dict[str, object]:
    return {"topic": topic, "partition": index, "replicas": list(replicas)}


def ask(store: EmbeddedStore, *partitions: dict[str, object], path: str = REASSIGNMENTS) -> None:
    run(store.create(path, json.dumps({"version": 1, "partitions": partitions}).encode()))


def partition(cluster: Cluster, index: int = 0) -> PartitionImage:
    return cluster.stored.topics["t"].partitions[index]


def with_isr(before: PartitionImage, isr: tuple[int, ...]) -> PartitionImage:
    return replace(before, isr=isr, partition_epoch=before.partition_epoch + 1)


def join_isr(cluster: Cluster, index: int, isr: tuple[int, ...]) -> None:
    async def join() -> None:
        async with cluster.changing():
            await change_states(
                cluster,
                {"t": [index]},
                lambda topic, index, known: with_isr(known or partition(cluster), isr),
            )

    run(join())


def test_partitions_are_reassigned_and_leave_the_node_one_by_one(cluster: Cluster, store: EmbeddedStore) -> None:
    ask(store, target("t", 0, 3, 1), target("t", 1, 2, 3))
    look(cluster)
    assert (partition(cluster).replicas, partition(cluster).adding) == ((3, 1, 2), (3,))
    assert asked(store) == [target("t", 0, 3, 1), target("t", 1, 2, 3)]
    join_isr(cluster, 0, (1, 2, 3))
    assert (partition(cluster).replicas, partition(cluster).adding) == ((3, 1), ())
    assert asked(store) == [target("t", 1, 2, 3)]
    join_isr(cluster, 1, (1, 2, 3))
    assert partition(cluster, 1).replicas == (2, 3)
    assert asked(store) is None
    ask(store, target("t", 0, 1, 2))
    look(cluster)
    assert partition(cluster).adding == (2,)


def test_what_cannot_be_is_taken_out_with_the_reason(
    cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {
        "t-0 does not get the replicas [9, 1]: Replica assignment has brokers that are not alive": target("t", 0, 9, 1),
        "t-7 does not get the replicas [1]: The partition does not exist": target("t", 7, 1),
        "u-0 does not get the replicas [1]: The partition does not exist": target("u", 0, 1),
        "t--1 does not get the replicas [1]: The partition does not exist": target("t", -1, 1),
        "t-1 does not get the replicas [2, 2]: Duplicate replica ids": target("t", 1, 2, 2),
    }
    ask(store, *wrong.values())
    look(cluster)
    assert asked(store) is None
    said = [record.getMessage() for record in caplog.records]
    assert all(any(line.startswith(reason) for line in said) for reason in wrong)
    assert partition(cluster).replicas == (1, 2)
    ask(store, target("t", 0))
    look(cluster)
    assert asked(store) is None


def test_what_is_so_already_is_taken_out_without_a_change(cluster: Cluster, store: EmbeddedStore) -> None:
    ask(store, target("t", 0, 1, 2))
    look(cluster)
    assert asked(store) is None
    assert partition(cluster).leader_epoch == 0


def test_a_reassignment_that_was_called_off_leaves_the_node(cluster: Cluster, store: EmbeddedStore) -> None:
    ask(store, target("t", 0, 3, 1))
    look(cluster)
    verdicts = run(reassign(cluster, {"t": {0: None}}))
    assert isinstance(verdicts["t"][0], PartitionImage)
    look(cluster)
    assert asked(store) is None
    assert (partition(cluster).replicas, partition(cluster).adding) == ((1, 2), ())


def test_the_next_controller_carries_on(cluster: Cluster, store: EmbeddedStore) -> None:
    ask(store, target("t", 0, 3, 1), target("t", 1, 2, 3))
    look(cluster)
    run(store.delete("/controller"))
    look(cluster)
    assert cluster.office.epoch == 2
    join_isr(cluster, 0, (1, 2, 3))
    assert asked(store) == [target("t", 1, 2, 3)]


@pytest.mark.parametrize("data", [None, b"", b"[]", b'{"version":1}', b'{"version":2,"partitions":[]}'])
def test_a_request_that_cannot_be_understood_is_named_once(
    data: bytes | None, cluster: Cluster, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    run(store.create(REASSIGNMENTS, data))
    look(cluster)
    look(cluster)
    assert len([each for each in caplog.records if REASSIGNMENTS in each.getMessage()]) == 1
    assert run(store.get(REASSIGNMENTS)).data == data
    run(store.create(ELECTIONS, data))
    look(cluster)
    assert len([each for each in caplog.records if ELECTIONS in each.getMessage()]) == 1
    assert asked(store, ELECTIONS) is None


def test_preferred_leaders_are_elected_and_the_node_goes(cluster: Cluster, store: EmbeddedStore) -> None:
    async def lead_elsewhere() -> None:
        async with cluster.changing():
            for index in (0, 1):
                known = partition(cluster, index)
                changed = replace(
                    known,
                    leader=2,
                    isr=(1, 2) if index == 0 else (2,),
                    leader_epoch=known.leader_epoch + 1,
                    partition_epoch=known.partition_epoch + 1,
                )
                await change_states(cluster, {"t": [index]}, lambda *_, changed=changed: changed)

    run(lead_elsewhere())
    ask(store, *({"topic": name, "partition": index} for name, index in (("t", 0), ("t", 1), ("u", 0))), path=ELECTIONS)
    look(cluster)
    assert [partition(cluster, index).leader for index in (0, 1)] == [1, 2]
    assert asked(store, ELECTIONS) is None
