"""Groups and what no sound client sends: ids and metadata as large as the wire allows, the dead, damaged records."""

import logging
from pathlib import Path
from typing import Any

import pytest
from raw_client import Connect, RawClient, error_name, run_with_broker

from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestTopic
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

LONGEST = "g" * 32_767
"""As long as a string of the wire can be."""
TEN_MEBIBYTES = 10 * 1024 * 1024
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN, HEARTBEAT, LEAVE, SYNC, DESCRIBE = 8, 9, 10, 11, 12, 13, 14, 15
DELETE_GROUPS = 42
ONE_SHARD = {"offsets.topic.num.partitions": "1"}


def join(group_id: str, member_id: str = "", instance_id: str | None = None, metadata: bytes = b"") -> JoinGroupRequest:
    protocols = [JoinGroupRequestProtocol("range", metadata)]
    return JoinGroupRequest(group_id, 10_000, 60_000, member_id, instance_id, "consumer", protocols)


def commit(group_id: str, offset: int, member_id: str = "", generation_id: int = -1) -> OffsetCommitRequest:
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=offset, committed_metadata=group_id)
    topics = [OffsetCommitRequestTopic(name="t", partitions=[partition])]
    return OffsetCommitRequest(group_id, generation_id, member_id, topics=topics)


async def ready(client: RawClient) -> None:
    """A topic to commit offsets for, and the offsets topic."""
    await client.create_topic("t")
    assert (await client.ask(FIND_COORDINATOR, FindCoordinatorRequest("g"), 3)).error_code == 0


async def committed(client: RawClient, group_id: str) -> int:
    request = OffsetFetchRequest(group_id, [OffsetFetchRequestTopic("t", [0])])
    answer = await client.ask(OFFSET_FETCH, request, 5)
    assert answer.error_code == 0
    return answer.topics[0].partitions[0].committed_offset


def test_ids_as_long_as_the_wire_allows_make_a_group_like_any_other(tmp_path: Path) -> None:
    async def lives(connect: Connect) -> None:
        async with await connect() as client:
            await ready(client)
            joined = await client.ask(JOIN, join(LONGEST, instance_id=LONGEST), 9)
            assert error_name(joined.error_code) == "NONE"
            assert len(joined.member_id) < 2_000
            assignments = [SyncGroupRequestAssignment(joined.member_id, b"t-0")]
            sync = SyncGroupRequest(
                LONGEST, joined.generation_id, joined.member_id, LONGEST, "consumer", "range", assignments
            )
            assert (await client.ask(SYNC, sync, 5)).assignment == b"t-0"
            stored = await client.ask(OFFSET_COMMIT, commit("short", 5), 7)
            assert error_name(stored.topics[0].partitions[0].error_code) == "NONE"
            described = await client.ask(DESCRIBE, DescribeGroupsRequest([LONGEST]), 5)
            assert described.groups[0].members[0].group_instance_id == LONGEST

    async def is_known_again(connect: Connect) -> None:
        async with await connect() as client:
            described = (await client.ask(DESCRIBE, DescribeGroupsRequest([LONGEST]), 5)).groups[0]
            assert (described.group_state, described.members[0].member_assignment) == ("Stable", b"t-0")
            nobody = await client.ask(DESCRIBE, DescribeGroupsRequest([LONGEST[:-1]]), 6)
            assert error_name(nobody.groups[0].error_code) == "GROUP_ID_NOT_FOUND"

    run_with_broker(tmp_path, lives, ONE_SHARD)
    run_with_broker(tmp_path, is_known_again, ONE_SHARD)


def test_metadata_that_no_record_can_hold_is_refused_and_the_group_goes_on_without_it(tmp_path: Path) -> None:
    async def main(connect: Connect) -> None:
        async with await connect() as client:
            await ready(client)
            joined = await client.ask(JOIN, join("g", metadata=bytes(TEN_MEBIBYTES)), 3)
            assert error_name(joined.error_code) == "NONE"
            assert len(joined.members[0].metadata) == TEN_MEBIBYTES
            sync = SyncGroupRequest("g", joined.generation_id, joined.member_id)
            assert error_name((await client.ask(SYNC, sync, 3)).error_code) == "UNKNOWN_SERVER_ERROR"
            leave = LeaveGroupRequest("g", joined.member_id, [MemberIdentity(joined.member_id)])
            assert error_name((await client.ask(LEAVE, leave, 3)).error_code) == "NONE"
            again = await client.ask(JOIN, join("g", metadata=b"small"), 3)
            sync = SyncGroupRequest("g", again.generation_id, again.member_id)
            assert error_name((await client.ask(SYNC, sync, 3)).error_code) == "NONE"

    run_with_broker(tmp_path, main, ONE_SHARD)


def test_a_deleted_group_has_no_members_no_generation_and_no_offsets(tmp_path: Path) -> None:
    async def main(connect: Connect) -> None:
        async with await connect() as client:
            await ready(client)
            joined = await client.ask(JOIN, join("g"), 3)
            member_id, generation_id = joined.member_id, joined.generation_id
            await client.ask(SYNC, SyncGroupRequest("g", generation_id, member_id), 3)
            await client.ask(OFFSET_COMMIT, commit("g", 7, member_id, generation_id), 7)
            leave = LeaveGroupRequest("g", member_id, [MemberIdentity(member_id)])
            assert error_name((await client.ask(LEAVE, leave, 3)).error_code) == "NONE"
            deleted = await client.ask(DELETE_GROUPS, DeleteGroupsRequest(["g"]), 2)
            assert error_name(deleted.results[0].error_code) == "NONE"

            async def error_of(key: int, request: Any, version: int) -> str:
                return error_name((await client.ask(key, request, version)).error_code)

            heartbeat = HeartbeatRequest("g", generation_id, member_id)
            assert await error_of(HEARTBEAT, heartbeat, 4) == "UNKNOWN_MEMBER_ID"
            assert await error_of(SYNC, SyncGroupRequest("g", generation_id, member_id), 3) == "UNKNOWN_MEMBER_ID"
            assert await error_of(JOIN, join("g", member_id), 3) == "UNKNOWN_MEMBER_ID"
            late = await client.ask(OFFSET_COMMIT, commit("g", 8, member_id, generation_id), 7)
            assert error_name(late.topics[0].partitions[0].error_code) == "ILLEGAL_GENERATION"
            assert await committed(client, "g") == -1

    run_with_broker(tmp_path, main, ONE_SHARD)


def test_a_damaged_record_of_one_group_is_named_and_the_other_groups_are_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await ready(client)
            for number, group_id in enumerate(["before", "damaged", "after"]):
                await client.ask(OFFSET_COMMIT, commit(group_id, 10 + number), 7)

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert [await committed(client, group_id) for group_id in ("before", "damaged", "after")] == [10, -1, 12]

    run_with_broker(tmp_path, before, ONE_SHARD)
    (segment,) = (tmp_path / "__consumer_offsets-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[data.rindex(b"damaged")] ^= 0xFF
    segment.write_bytes(data)
    with caplog.at_level(logging.ERROR, "kpy"):
        run_with_broker(tmp_path, after, ONE_SHARD)
    assert "__consumer_offsets-0: the batch at offset 1 is damaged and passed over" in caplog.messages
