"""The handlers of the group APIs: what they do besides handing a request to its group's machine."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from admin_broker import run

from kpy.api.client import Client
from kpy.api.delete_groups import delete_groups
from kpy.api.describe_groups import ALL_GROUP_OPERATIONS, describe_groups
from kpy.api.find_coordinator import find_coordinator
from kpy.api.heartbeat import heartbeat
from kpy.api.join_group import join_group
from kpy.api.leave_group import leave_group
from kpy.api.list_groups import list_groups
from kpy.api.offset_commit import offset_commit
from kpy.api.offset_delete import offset_delete
from kpy.api.offset_fetch import offset_fetch
from kpy.api.sync_group import sync_group
from kpy.errors import ApiError, ErrorCode
from kpy.group.answers import refusal
from kpy.group.shard import GroupShard
from kpy.group.turn import GroupConfig
from kpy.machine import Request
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.pending import Pending
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest
from kpy.wire.list_groups import ListGroupsRequest
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_delete import OffsetDeleteRequest
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

T_ID, GONE_ID = b"t" * 16, b"g" * 16
T = TopicImage("t", T_ID, (PartitionImage(0, 1, 0, (1,), (1,)),))
OFFSETS = TopicImage("__consumer_offsets", b"o" * 16, tuple(PartitionImage(each, each, 0, (), ()) for each in range(3)))
BROKERS = {
    0: BrokerImage(0, None, {"INSIDE": ("inside-0", 1), "OUTSIDE": ("outside-0", 2)}),
    1: BrokerImage(1, None, {"INSIDE": ("inside-1", 1)}),
}
IMAGE = MetadataImage("c", 0, BROKERS, {"t": T, OFFSETS.name: OFFSETS}, {T_ID: "t"}, {})


class Groups:
    """In the coordinator's place: one shard whose records are always written, and whose answers may come late."""

    def __init__(self) -> None:
        self.shard = GroupShard(
            GroupConfig(), random.Random(1), lambda topic, partition: topic == "t" and partition == 0
        )
        self.late = False
        self.cannot_create: ApiError | None = None
        self.pending: list[tuple[Pending[Any], Any]] = []

    def tell(self, group_id: str, message: Any, client: Client) -> Any:
        effects = self.shard.handle(Request(message, client.version, client.client_id, client.host, None), 1_000)
        for key, value in effects.records:
            self.shard.replay(key, value)
        response = effects.replies[0][1]
        if not self.late:
            return response
        self.pending.append((Pending(), response))
        return self.pending[-1][0]

    def list_groups(self, states: list[str], types: list[str]) -> Any:
        return ErrorCode.NONE, self.shard.listed(states, types)

    def partition_for(self, group_id: str) -> int:
        return int(group_id)

    @property
    def topic(self) -> TopicImage | None:
        return None if self.cannot_create else OFFSETS

    async def ensure_topic(self) -> TopicImage:
        if self.cannot_create is not None:
            raise self.cannot_create
        return OFFSETS


@pytest.fixture
def broker() -> Any:
    return SimpleNamespace(groups=Groups(), transactions=None, cluster=SimpleNamespace(image=IMAGE))


def a_client(version: int, listener: str = "INSIDE") -> Client:
    client = Client("127.0.0.1", listener)
    client.version = version
    return client


def commit(topic: str = "t", topic_id: bytes = bytes(16), partition: int = 0) -> OffsetCommitRequestTopic:
    partitions = [OffsetCommitRequestPartition(partition_index=partition, committed_offset=5)]
    return OffsetCommitRequestTopic(name=topic, topic_id=topic_id, partitions=partitions)


# -- FindCoordinator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 3])
def test_the_coordinator_is_named_at_the_clients_listener(broker: Any, version: int) -> None:
    answer: Any = find_coordinator(FindCoordinatorRequest(key="0"), a_client(version, "OUTSIDE"), broker)
    found = answer
    assert (found.error_code, found.error_message) == (ErrorCode.NONE, "NONE")
    assert (found.node_id, found.host, found.port) == (0, "outside-0", 2)


def test_several_coordinators_come_in_the_order_asked(broker: Any) -> None:
    request = FindCoordinatorRequest(coordinator_keys=["1", "0", "2"])
    answer: Any = find_coordinator(request, a_client(4), broker)
    found = answer.coordinators
    assert [(each.key, each.node_id, each.host, each.port, each.error_code) for each in found] == [
        ("1", 1, "inside-1", 1, ErrorCode.NONE),
        ("0", 0, "inside-0", 1, ErrorCode.NONE),
        ("2", -1, "", -1, ErrorCode.COORDINATOR_NOT_AVAILABLE),
    ]


def test_a_leader_that_is_not_reached_by_this_listener_is_not_available(broker: Any) -> None:
    answer: Any = find_coordinator(FindCoordinatorRequest(key="1"), a_client(3, "OUTSIDE"), broker)
    found = answer
    assert (found.error_code, found.node_id, found.host, found.port) == (
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        -1,
        "",
        -1,
    )


def test_a_topic_that_cannot_be_created_means_no_coordinator_yet(broker: Any) -> None:
    broker.groups.cannot_create = ApiError(ErrorCode.INVALID_REPLICATION_FACTOR, "no brokers")
    answer: Any = find_coordinator(FindCoordinatorRequest(key="0"), a_client(3), broker)
    found = run(answer)
    assert (found.error_code, found.error_message) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, "no brokers")


@pytest.mark.parametrize("key_type", [2, 3, -1])
def test_other_kinds_of_coordinators_are_an_invalid_request(broker: Any, key_type: int) -> None:
    request = FindCoordinatorRequest(key_type=key_type, coordinator_keys=["0"])
    answer: Any = find_coordinator(request, a_client(6), broker)
    found = answer.coordinators[0]
    assert (found.key, found.error_code, found.node_id) == ("0", ErrorCode.INVALID_REQUEST, -1)
    assert found.error_message


# -- one group a request -----------------------------------------------------------------------------------------------


def test_membership_requests_reach_the_group(broker: Any) -> None:
    client = a_client(3)
    join = JoinGroupRequest("g", 10_000, 60_000, "", None, "consumer", [JoinGroupRequestProtocol("range", b"")])
    joined: Any = join_group(join, client, broker)
    member_id = joined.member_id
    assignments = [SyncGroupRequestAssignment(member_id, b"mine")]
    synced: Any = sync_group(SyncGroupRequest("g", 1, member_id, assignments=assignments), client, broker)
    assert synced.assignment == b"mine"
    assert heartbeat(HeartbeatRequest("g", 1, member_id), client, broker).error_code == ErrorCode.NONE
    left: Any = leave_group(LeaveGroupRequest("g", member_id), a_client(2), broker)
    assert left.error_code == ErrorCode.NONE
    deleted: Any = offset_delete(OffsetDeleteRequest("nobody"), a_client(0), broker)
    assert deleted.error_code == ErrorCode.GROUP_ID_NOT_FOUND


def test_groups_are_listed(broker: Any) -> None:
    offset_commit(OffsetCommitRequest(group_id="g", topics=[commit()]), a_client(9), broker)
    listed = list_groups(ListGroupsRequest(states_filter=["empty"]), a_client(4), broker)
    assert [each.group_id for each in listed.groups] == ["g"]
    assert list_groups(ListGroupsRequest(states_filter=["stable"]), a_client(4), broker).groups == []


# -- several groups a request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_groups_are_described_and_deleted_in_the_order_asked(broker: Any, late: bool) -> None:
    offset_commit(OffsetCommitRequest(group_id="b", topics=[commit()]), a_client(9), broker)
    broker.groups.late = late
    asked = DescribeGroupsRequest(groups=["a", "b"], include_authorized_operations=True)
    described = answer_of(broker, describe_groups(asked, a_client(5), broker))
    assert [(each.group_id, each.group_state) for each in described.groups] == [("a", "Dead"), ("b", "Empty")]
    assert {each.authorized_operations for each in described.groups} == {ALL_GROUP_OPERATIONS}
    deleted = answer_of(broker, delete_groups(DeleteGroupsRequest(groups_names=["b", "a"]), a_client(2), broker))
    assert [(each.group_id, each.error_code) for each in deleted.results] == [
        ("b", ErrorCode.NONE),
        ("a", ErrorCode.GROUP_ID_NOT_FOUND),
    ]


def answer_of(broker: Any, answer: Any) -> Any:
    """The response; what the coordinator holds back is let go in reverse order."""
    if not broker.groups.late:
        return answer
    responses: list[Any] = []
    answer.deliver_to(responses.append)
    for pending, response in reversed(broker.groups.pending):
        assert not responses
        pending.complete(response)
    broker.groups.pending.clear()
    return responses[0]


def test_operations_are_shown_only_to_who_asks_for_them(broker: Any) -> None:
    described: Any = describe_groups(DescribeGroupsRequest(groups=["a"]), a_client(5), broker)
    assert described.groups[0].authorized_operations == -(2**31)


@pytest.mark.parametrize("late", [False, True])
def test_offsets_of_several_groups_are_fetched_in_the_order_asked(broker: Any, late: bool) -> None:
    offset_commit(OffsetCommitRequest(group_id="b", topics=[commit()]), a_client(9), broker)
    broker.groups.late = late
    groups = [
        OffsetFetchRequestGroup("a", topics=[OffsetFetchRequestTopics("t", partition_indexes=[0])]),
        OffsetFetchRequestGroup("b", topics=None),
    ]
    fetched = answer_of(broker, offset_fetch(OffsetFetchRequest(groups=groups), a_client(8), broker))
    assert [(each.group_id, each.topics[0].partitions[0].committed_offset) for each in fetched.groups] == [
        ("a", -1),
        ("b", 5),
    ]


def test_offsets_of_one_group_are_on_top_below_version_8(broker: Any) -> None:
    request = OffsetFetchRequest("g", [OffsetFetchRequestTopic("t", [0])])
    fetched: Any = offset_fetch(request, a_client(7), broker)
    assert fetched.topics[0].partitions[0].committed_offset == -1


# -- topic ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_version_10_commits_by_topic_id_and_says_which_ids_are_unknown(broker: Any, late: bool) -> None:
    broker.groups.late = late
    topics = [commit("", GONE_ID), commit("", T_ID), commit("", T_ID, partition=7)]
    answer = answer_of(broker, offset_commit(OffsetCommitRequest(group_id="g", topics=topics), a_client(10), broker))
    assert {
        (each.topic_id, each.partitions[0].partition_index, each.partitions[0].error_code) for each in answer.topics
    } == {
        (GONE_ID, 0, ErrorCode.UNKNOWN_TOPIC_ID),
        (T_ID, 0, ErrorCode.NONE),
        (T_ID, 7, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    }
    assert broker.groups.shard.offsets.get("g", "t", 0).offset == 5


def test_version_10_with_known_ids_alone_and_with_unknown_ones_alone(broker: Any) -> None:
    client = a_client(10)
    known: Any = offset_commit(OffsetCommitRequest(group_id="g", topics=[commit("", T_ID)]), client, broker)
    assert [each.topic_id for each in known.topics] == [T_ID]
    unknown: Any = offset_commit(OffsetCommitRequest(group_id="h", topics=[commit("", GONE_ID)]), client, broker)
    assert unknown.topics[0].partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert list(broker.groups.shard.groups) == ["g"]


def test_version_10_fetches_by_topic_id(broker: Any) -> None:
    offset_commit(OffsetCommitRequest(group_id="g", topics=[commit()]), a_client(9), broker)
    asked = [
        OffsetFetchRequestTopics(topic_id=GONE_ID, partition_indexes=[1]),
        OffsetFetchRequestTopics(topic_id=T_ID, partition_indexes=[0]),
    ]
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup("g", topics=asked)])
    fetched: Any = offset_fetch(request, a_client(10), broker)
    assert {
        (each.topic_id, each.partitions[0].committed_offset, each.partitions[0].error_code)
        for each in fetched.groups[0].topics
    } == {(T_ID, 5, ErrorCode.NONE), (GONE_ID, -1, ErrorCode.UNKNOWN_TOPIC_ID)}


def test_version_10_passes_on_what_is_wrong_with_the_group(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        broker.groups, "tell", lambda group_id, message, client: refusal(message, 10, ErrorCode.NOT_COORDINATOR)
    )
    asked = [OffsetFetchRequestTopics(topic_id=GONE_ID, partition_indexes=[1])]
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup("g", topics=asked)])
    fetched: Any = offset_fetch(request, a_client(10), broker)
    assert [(each.error_code, each.topics) for each in fetched.groups] == [(ErrorCode.NOT_COORDINATOR, [])]


def test_version_10_leaves_out_topics_that_are_gone_when_all_are_asked_for(broker: Any) -> None:
    offset_commit(OffsetCommitRequest(group_id="g", topics=[commit()]), a_client(9), broker)
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup("g", topics=None)])
    shown: Any = offset_fetch(request, a_client(10), broker)
    assert [each.topic_id for each in shown.groups[0].topics] == [T_ID]
    broker.cluster.image = replace(IMAGE, topics={OFFSETS.name: OFFSETS}, topic_names={})
    hidden: Any = offset_fetch(request, a_client(10), broker)
    assert hidden.groups[0].topics == []
