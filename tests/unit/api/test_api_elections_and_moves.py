"""ElectLeaders and the reassignments, as their handlers answer them; the transcripts of the controller say more."""

import pytest
from admin_broker import call, make_broker, open_cluster, run

from kpy.api.broker import Broker
from kpy.controller.isr_changes import Proposal
from kpy.errors import ErrorCode
from kpy.metadata.asked_by_brokers import alter_partitions
from kpy.metadata.cluster import Cluster
from kpy.metadata.image import PartitionImage
from kpy.metadata.leader_elections import even_out
from kpy.wire import alter_partition_reassignments, create_topics, elect_leaders, list_partition_reassignments
from kpy.wire.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    ReassignablePartition,
    ReassignableTopic,
)
from kpy.wire.create_topics import CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest
from kpy.wire.elect_leaders import ElectLeadersRequest, TopicPartitions
from kpy.wire.list_partition_reassignments import ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics

PREFERRED, UNCLEAN = 0, 1


@pytest.fixture
def broker() -> Broker:
    """Broker 1, the controller, with 2 and 3 beside it, and a topic of theirs."""
    broker = make_broker()
    for broker_id in (2, 3):
        join(broker.cluster, broker_id)
    run(broker.cluster.alter_configs("topics", "t", lambda _: {}))  # Reads who is there.
    assignment = [CreatableReplicaAssignment(0, [1, 2]), CreatableReplicaAssignment(1, [2, 3])]
    topic = CreatableTopic(name="t", num_partitions=-1, replication_factor=-1, assignments=assignment)
    (result,) = call(broker, create_topics, CreateTopicsRequest(topics=[topic], timeout_ms=1000), 7).topics
    assert result.error_code == ErrorCode.NONE
    return broker


def join(cluster: Cluster, broker_id: int) -> None:
    other = run(Cluster.open(cluster._store, broker_id=broker_id, rng=cluster._rng, now_ms=lambda: 0))  # pyright: ignore[reportPrivateUsage]
    run(other.register({"PLAINTEXT": (f"host-{broker_id}", 9092)}, {"PLAINTEXT": "PLAINTEXT"}))


def partition(broker: Broker, index: int) -> PartitionImage:
    return broker.cluster.image.topics["t"].partitions[index]


def change_isr(broker: Broker, index: int, *isr: int) -> None:
    """As the leader asks for it."""
    now = partition(broker, index)
    epoch = broker.cluster.image.brokers[now.leader].epoch
    proposal = Proposal(now.leader_epoch, now.partition_epoch, isr)
    run(alter_partitions(broker.cluster, now.leader, epoch, {"t": {index: proposal}}))
    assert partition(broker, index).isr == isr


def move(broker: Broker, index: int, replicas: list[int] | None) -> int:
    topic = ReassignableTopic("t", [ReassignablePartition(index, replicas)])
    request = AlterPartitionReassignmentsRequest(topics=[topic])
    response = call(broker, alter_partition_reassignments, request, 0)
    assert response.error_code == ErrorCode.NONE
    (answer,) = response.responses[0].partitions
    code: int = answer.error_code
    return code


def elect(broker: Broker, election_type: int, *partitions: int, version: int = 2) -> dict[int, int]:
    asked = [TopicPartitions("t", list(partitions))] if partitions else None
    response = call(broker, elect_leaders, ElectLeadersRequest(election_type, asked, 100), version)
    return {
        each.partition_id: each.error_code
        for topic in response.replica_election_results
        for each in topic.partition_result
    }


def ongoing(broker: Broker, topics: list[ListPartitionReassignmentsTopics] | None = None) -> list[tuple[int, ...]]:
    response = call(broker, list_partition_reassignments, ListPartitionReassignmentsRequest(topics=topics), 0)
    return [
        (each.partition_index, *each.replicas, -1, *each.adding_replicas, -1, *each.removing_replicas)
        for topic in response.topics
        for each in topic.partitions
    ]


def test_a_move_goes_on_until_the_target_is_in_sync(broker: Broker) -> None:
    assert move(broker, 0, [3, 2]) == ErrorCode.NONE
    assert ongoing(broker) == [(0, 3, 2, 1, -1, 3, -1, 1)]
    change_isr_of_move = partition(broker, 0)
    assert change_isr_of_move.leader == 1
    proposal = Proposal(change_isr_of_move.leader_epoch, change_isr_of_move.partition_epoch, (1, 2, 3))
    epoch = broker.cluster.image.brokers[1].epoch
    run(alter_partitions(broker.cluster, 1, epoch, {"t": {0: proposal}}))
    moved = partition(broker, 0)
    assert (moved.replicas, moved.isr, moved.leader, moved.adding, moved.removing) == ((3, 2), (2, 3), 3, (), ())
    assert ongoing(broker) == []


def test_a_move_is_called_off(broker: Broker) -> None:
    assert move(broker, 0, None) == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    move(broker, 0, [3, 2])
    assert move(broker, 0, None) == ErrorCode.NONE
    # Which of them came first is forgotten, as in Apache Kafka.
    assert partition(broker, 0).replicas == (2, 1)
    assert ongoing(broker) == []


def test_moves_are_listed_by_partition(broker: Broker) -> None:
    move(broker, 0, [3, 2])
    assert (
        ongoing(broker, [ListPartitionReassignmentsTopics("t", [1]), ListPartitionReassignmentsTopics("u", [0])]) == []
    )
    assert len(ongoing(broker, [ListPartitionReassignmentsTopics("t", [0, 1])])) == 1


@pytest.mark.parametrize(
    ("index", "replicas", "error"),
    [
        (0, [], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (0, [2, 2], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (0, [-1], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (0, [4], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (9, [1], ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_what_cannot_be_is_refused(broker: Broker, index: int, replicas: list[int], error: ErrorCode) -> None:
    assert move(broker, index, replicas) == error
    assert ongoing(broker) == []


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_preferred_leader_is_elected_if_it_is_in_sync(broker: Broker, version: int) -> None:
    assert elect(broker, PREFERRED, 1, version=version) == {1: ErrorCode.ELECTION_NOT_NEEDED}
    move(broker, 1, [3, 2])
    assert elect(broker, PREFERRED, 1, version=version) == {1: ErrorCode.NONE}
    assert partition(broker, 1).leader == 3
    change_isr(broker, 1, 3)
    move(broker, 1, [2, 3])
    assert elect(broker, PREFERRED, 1, version=version) == {1: ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE}
    assert elect(broker, PREFERRED, 9, version=version) == {9: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


def test_of_all_partitions_those_that_needed_an_election_are_answered(broker: Broker) -> None:
    assert elect(broker, PREFERRED) == {}
    move(broker, 1, [3, 2])
    assert elect(broker, PREFERRED) == {1: ErrorCode.NONE}


def test_an_unclean_leader_is_elected_only_where_nobody_leads(broker: Broker) -> None:
    assert elect(broker, UNCLEAN, 0) == {0: ErrorCode.ELECTION_NOT_NEEDED}
    response = call(broker, elect_leaders, ElectLeadersRequest(7, None, 100), 2)
    assert response.error_code == ErrorCode.INVALID_REQUEST


def test_leaders_are_evened_out_where_too_many_are_misplaced(broker: Broker) -> None:
    move(broker, 1, [3, 2])
    run(even_out(broker.cluster, 100))
    assert partition(broker, 1).leader == 2
    run(even_out(broker.cluster, 10))
    assert partition(broker, 1).leader == 3


def test_another_broker_than_the_controller_refuses(broker: Broker) -> None:
    store = broker.cluster._store  # pyright: ignore[reportPrivateUsage]
    broker.cluster = open_cluster(store)  # pyright: ignore[reportArgumentType]
    topic = ReassignableTopic("t", [ReassignablePartition(0, [1])])
    request = AlterPartitionReassignmentsRequest(topics=[topic])
    assert call(broker, alter_partition_reassignments, request, 0).error_code == ErrorCode.NOT_CONTROLLER
    assert elect(broker, PREFERRED, 0) == {0: ErrorCode.NOT_CONTROLLER}
    listed = call(broker, list_partition_reassignments, ListPartitionReassignmentsRequest(), 0)
    assert listed.error_code == ErrorCode.NOT_CONTROLLER
