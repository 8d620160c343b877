"""A shard told by wire requests of every version: what the transcripts, which speak the newest ones, do not show."""

import pytest

from kpy.errors import ErrorCode, WireError
from kpy.group import shard as shard_module
from kpy.group.records import CommittedOffset, group_key, group_tombstone, offset_record
from kpy.group.turn import MAX_MEMBER_ID_PREFIX, NEW_MEMBER_JOIN_TIMEOUT_MS
from kpy.machine import Request, Tick
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.group_records import GroupMetadataValue, MemberMetadata, encode_group_metadata_value
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupResponse
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
)
from kpy.wire.sync_group import SyncGroupRequest
from tests.unit.group.lone_shard import NOW_MS, Told, commit, fetch, join

# -- JoinGroup and what follows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "name"), [(6, ""), (7, None)])
def test_errors_have_an_empty_protocol_name_below_version_7_and_none_from_then_on(
    version: int, name: str | None
) -> None:
    answer = Told().ask(join(member_id="never given out"), version)
    assert (answer.error_code, answer.protocol_name) == (ErrorCode.UNKNOWN_MEMBER_ID, name)


def test_version_0_has_no_rebalance_timeout_so_the_session_timeout_stands_for_it() -> None:
    told = Told()
    told.ask(join(session_timeout_ms=7_000, rebalance_timeout_ms=-1), 0)
    assert told.shard.groups["g"].rebalance_timeout_ms == 7_000


def test_a_member_id_starts_with_the_client_id_and_fits_a_string_of_the_wire() -> None:
    told = Told()
    assert told.ask(join("a"), 4, client_id="me").member_id.startswith("me-")
    long = told.ask(join("b"), 4, client_id="ü" * 30_000).member_id
    assert len(long) == MAX_MEMBER_ID_PREFIX + 37
    static = join("c")
    static.group_instance_id = "me-again"
    assert told.ask(static, 5).member_id.startswith("me-again-")


def test_a_group_without_a_name_is_refused_where_members_are_concerned() -> None:
    told = Told()
    for message in (join(""), SyncGroupRequest(""), HeartbeatRequest(""), LeaveGroupRequest("")):
        assert told.ask(message, 2).error_code == ErrorCode.INVALID_GROUP_ID
    assert (
        told.ask(OffsetCommitRequest(group_id="", topics=commit((0, 5)).topics), 2).topics[0].partitions[0].error_code
        == 0
    )


def test_nobody_is_a_member_of_a_group_that_does_not_exist() -> None:
    told = Told()
    for message in (join(member_id="m"), SyncGroupRequest("g", 1, "m"), HeartbeatRequest("g", 1, "m")):
        assert told.ask(message, 2).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_refused_join_leaves_no_group_behind() -> None:
    told = Told()
    assert told.ask(join(protocols=[]), 3).error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert not told.shard.groups
    assert told.shard.next_deadline_ms() is None


def test_a_protocol_named_twice_counts_once() -> None:
    told = Told()
    member_id = told.ask(join(protocols=["range", "range"]), 3).member_id
    assert told.ask(join(protocols=["range"]), 3) is None
    assert told.ask(join(member_id=member_id, protocols=["range", "range"]), 3).protocol_name == "range"


def test_a_join_that_is_sent_again_lets_the_older_request_go() -> None:
    told = Told()
    leader = told.stable_group()
    follower = told.ask(join(), 4).member_id
    token = object()
    told.carry_out(told.shard.handle(Request(join(member_id=follower), 4, "c", "/h", token), NOW_MS))
    assert token not in told.answers
    assert told.ask(join(member_id=follower), 4) is None
    assert told.answers[token].error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert told.ask(join(member_id=leader), 4).generation_id == 2


def test_a_sync_that_is_sent_again_lets_the_older_request_go() -> None:
    told = Told()
    leader = told.stable_group()
    parked = Request(join(), 3, "c", "/h", "join")
    told.carry_out(told.shard.handle(parked, NOW_MS))
    told.ask(join(member_id=leader), 3)
    follower: JoinGroupResponse = told.answers["join"]
    sync = SyncGroupRequest("g", 2, follower.member_id)
    told.carry_out(told.shard.handle(Request(sync, 3, "c", "/h", "first"), NOW_MS))
    told.carry_out(told.shard.handle(Request(sync, 3, "c", "/h", "second"), NOW_MS))
    assert told.answers["first"].error_code == ErrorCode.REBALANCE_IN_PROGRESS
    told.ask(SyncGroupRequest("g", 2, leader), 3)
    assert told.answers["second"].error_code == ErrorCode.NONE


def test_a_member_that_is_removed_gets_its_parked_requests_answered() -> None:
    told = Told()
    leader = told.stable_group()
    told.carry_out(told.shard.handle(Request(join(), 3, "c", "/h", "join"), NOW_MS))
    told.ask(join(member_id=leader), 3)
    follower = told.answers["join"].member_id
    told.carry_out(told.shard.handle(Request(SyncGroupRequest("g", 2, follower), 3, "c", "/h", "sync"), NOW_MS))
    told.ask(LeaveGroupRequest("g", members=[MemberIdentity(member_id=follower)]), 3)
    assert told.answers["sync"].error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_new_member_that_gets_no_answer_for_five_minutes_is_removed_because_its_client_may_be_gone() -> None:
    told = Told()
    leader = told.ask(join(rebalance_timeout_ms=10**8), 3).member_id
    told.ask(SyncGroupRequest("g", 1, leader), 3)
    told.carry_out(told.shard.handle(Request(join(), 3, "c", "/h", "join"), NOW_MS))
    while told.now_ms < NOW_MS + NEW_MEMBER_JOIN_TIMEOUT_MS:
        assert "join" not in told.answers
        told.now_ms += 5_000
        assert told.ask(HeartbeatRequest("g", 1, leader), 3).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        told.carry_out(told.shard.handle(Tick(), told.now_ms))
    assert told.answers["join"].error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert list(told.shard.groups["g"].members) == [leader]


def test_ids_given_out_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpy.group.classic.MAX_PENDING_MEMBERS", 2)
    told = Told()
    errors = [told.ask(join(), 4).error_code for _ in range(3)]
    assert errors == [ErrorCode.MEMBER_ID_REQUIRED, ErrorCode.MEMBER_ID_REQUIRED, ErrorCode.GROUP_MAX_SIZE_REACHED]


def test_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "MAX_GROUPS", 1)
    told = Told()
    told.ask(join("a"), 3)
    assert told.ask(join("b"), 3).error_code == ErrorCode.POLICY_VIOLATION
    assert told.ask(commit((0, 1)), 2).topics[0].partitions[0].error_code == ErrorCode.POLICY_VIOLATION
    assert told.ask(join("a"), 4).error_code == ErrorCode.MEMBER_ID_REQUIRED


def test_sync_has_to_name_the_protocol_from_version_5_on() -> None:
    told = Told()
    member_id = told.stable_group()
    assert told.ask(SyncGroupRequest("g", 1, member_id), 4).error_code == ErrorCode.NONE
    for protocol in [(None, None), ("consumer", None), (None, "range"), ("consumer", "sticky"), ("connect", "range")]:
        refused = told.ask(SyncGroupRequest("g", 1, member_id, None, *protocol), 5)
        assert refused.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert told.ask(SyncGroupRequest("g", 1, member_id, None, "consumer", "range"), 5).error_code == ErrorCode.NONE


def test_an_id_that_was_given_out_to_a_dynamic_member_is_not_a_static_ones() -> None:
    told = Told()
    pending = told.ask(join(), 5).member_id
    as_static = join(member_id=pending)
    as_static.group_instance_id = "instance"
    assert told.ask(as_static, 5).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert told.ask(join(member_id=pending), 5).error_code == ErrorCode.NONE


@pytest.mark.parametrize("version", [0, 2])
def test_leave_below_version_3_has_one_member_and_its_error_on_top(version: int) -> None:
    told = Told()
    assert told.ask(LeaveGroupRequest("g", "x"), version).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    member_id = told.stable_group()
    answer = told.ask(LeaveGroupRequest("g", member_id), version)
    assert (answer.error_code, answer.members) == (ErrorCode.NONE, [])


def test_leave_of_an_unknown_group_tells_each_member() -> None:
    answer = Told().ask(LeaveGroupRequest("g", members=[MemberIdentity("x"), MemberIdentity("", "i")]), 3)
    assert answer.error_code == ErrorCode.NONE
    assert [(each.member_id, each.group_instance_id, each.error_code) for each in answer.members] == [
        ("x", None, ErrorCode.UNKNOWN_MEMBER_ID),
        ("", "i", ErrorCode.UNKNOWN_MEMBER_ID),
    ]


# -- describe, list, delete --------------------------------------------------------------------------------------------


def test_a_sweep_over_many_groups_goes_on_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "GROUPS_A_SWEEP", 10)
    told = Told()
    for number in range(25):
        told.shard.replay(*offset_record(f"g{number}", "t", 0, CommittedOffset(5, -1, "", NOW_MS)))
    told.shard.loaded(NOW_MS)
    begin_ms = told.shard.next_deadline_ms()
    assert begin_ms is not None
    for step in range(3):
        assert told.shard.next_deadline_ms() == begin_ms + step
        assert not told.shard.handle(Tick(), begin_ms + step).records
    assert told.shard.next_deadline_ms() == begin_ms + 2 + told.shard.config.offsets_retention_check_interval_ms


def test_describe_shows_members_of_a_stable_group_with_metadata_and_assignment() -> None:
    told = Told()
    member_id = told.stable_group()
    group = told.ask(DescribeGroupsRequest(groups=["g"]), 4).groups[0]
    assert (group.group_state, group.protocol_type, group.protocol_data) == ("Stable", "consumer", "range")
    shown = group.members[0]
    assert (shown.member_id, shown.client_id, shown.client_host) == (member_id, "c", "/127.0.0.1")
    assert (shown.member_metadata, shown.member_assignment) == (b"meta", b"mine")
    assert group.authorized_operations == -(2**31)


def test_describe_of_an_unknown_group_is_dead_and_from_version_6_on_an_error() -> None:
    old = Told().ask(DescribeGroupsRequest(groups=["g"]), 5).groups[0]
    assert (old.error_code, old.group_state) == (ErrorCode.NONE, "Dead")
    new = Told().ask(DescribeGroupsRequest(groups=["g"]), 6).groups[0]
    assert (new.error_code, new.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
    assert new.error_message == "Group g not found."


def test_list_filters_by_state_and_type_in_any_case_of_letters() -> None:
    told = Told()
    told.stable_group("stable")
    told.ask(OffsetCommitRequest(group_id="empty", topics=commit((0, 1)).topics), 2)

    def listed(states: list[str], types: list[str]) -> list[str]:
        return [each.group_id for each in told.shard.listed(states, types)]

    assert listed([], []) == ["stable", "empty"]
    assert listed(["sTABLE"], []) == ["stable"]
    assert listed(["Dead", " Empty "], ["Classic"]) == ["empty"]
    assert listed(["nonsense"], []) == []
    assert listed([], ["consumer"]) == []
    shown = told.shard.listed([], [])[1]
    assert (shown.protocol_type, shown.group_state, shown.group_type) == ("", "Empty", "classic")


def test_delete_judges_each_group_alone() -> None:
    told = Told()
    told.stable_group("busy")
    told.ask(OffsetCommitRequest(group_id="idle", topics=commit((0, 1)).topics), 2)
    results = told.ask(DeleteGroupsRequest(groups_names=["busy", "idle", "none"]), 1).results
    assert [(each.group_id, each.error_code) for each in results] == [
        ("busy", ErrorCode.NON_EMPTY_GROUP),
        ("idle", ErrorCode.NONE),
        ("none", ErrorCode.GROUP_ID_NOT_FOUND),
    ]
    assert list(told.shard.groups) == ["busy"]


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_shard_without_groups_arms_nothing() -> None:
    told = Told()
    fetch(told, 5)
    told.carry_out(told.shard.loaded(NOW_MS))
    assert told.shard.next_deadline_ms() is None


def test_records_of_newer_protocols_are_passed_over_and_broken_ones_refused() -> None:
    told = Told()
    told.shard.replay(b"\0\x03\0\x01g", b"whatever")
    assert not told.shard.groups
    with pytest.raises(WireError):
        told.shard.replay(b"\0\x02\0\x01g", b"\0\x03\xff")


def test_a_group_of_the_oldest_format_has_its_session_timeout_for_a_rebalance_timeout_too() -> None:
    told = Told()
    member = MemberMetadata(member_id="m", session_timeout=7_000, rebalance_timeout=-1)
    value = GroupMetadataValue(protocol_type="consumer", generation=3, protocol="range", leader="m", members=[member])
    told.shard.replay(group_key("g"), encode_group_metadata_value(value, 0))
    group = told.shard.groups["g"]
    assert (group.rebalance_timeout_ms, group.state_timestamp_ms) == (7_000, None)


def test_a_leader_that_is_no_member_is_replaced_by_one_that_is() -> None:
    told = Told()
    value = GroupMetadataValue(protocol_type="consumer", leader="gone", members=[MemberMetadata(member_id="m")])
    told.shard.replay(group_key("g"), encode_group_metadata_value(value, 3))
    assert told.shard.groups["g"].leader_id == "m"


def test_the_tombstone_of_a_group_that_has_offsets_left_makes_it_a_simple_one() -> None:
    told = Told()
    told.stable_group()
    told.shard.replay(*offset_record("g", "t", 0, CommittedOffset(1, -1, "", NOW_MS)))
    told.shard.replay(*group_tombstone("g"))
    group = told.shard.groups["g"]
    assert (group.state, group.protocol_type, group.members) == ("Empty", None, {})
    assert told.shard.offsets.count("g") == 1
    told.shard.replay(*group_tombstone("unknown"))


def test_a_group_that_is_loaded_over_its_maximum_size_rebalances() -> None:
    told = Told()
    leader = told.stable_group()
    told.carry_out(told.shard.handle(Request(join(), 3, "c", "/h", "join"), NOW_MS))
    told.ask(join(member_id=leader), 3)
    told.ask(SyncGroupRequest("g", 2, leader), 3)
    smaller = Told(group_max_size=1)
    for key, value in told.records:
        smaller.shard.replay(key, value)
    smaller.carry_out(smaller.shard.loaded(NOW_MS))
    assert smaller.shard.groups["g"].state == "PreparingRebalance"
    assert smaller.ask(join(member_id=leader), 3) is None
    follower = told.answers["join"].member_id
    assert smaller.ask(join(member_id=follower), 3).error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
