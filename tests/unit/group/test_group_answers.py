"""What is told to requests that no group gets to see, in every version: it must be there, and it must fit the wire."""

import sys
from typing import Any

import pytest

from kpy.errors import ErrorCode
from kpy.group.answers import append_refusal, refusal
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest
from kpy.wire.leave_group import LeaveGroupRequest
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_delete import OffsetDeleteRequest
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
)
from kpy.wire.sync_group import SyncGroupRequest

REQUESTS = [
    JoinGroupRequest("g", member_id="m"),
    SyncGroupRequest("g"),
    HeartbeatRequest("g"),
    LeaveGroupRequest("g"),
    OffsetCommitRequest("g", topics=[OffsetCommitRequestTopic(name="t", partitions=[OffsetCommitRequestPartition(3)])]),
    OffsetFetchRequest("g", [OffsetFetchRequestTopic("t", [3])], [OffsetFetchRequestGroup("g", topics=None)]),
    OffsetDeleteRequest("g"),
    DescribeGroupsRequest(["g"]),
    DeleteGroupsRequest(["g"]),
]
EVERY_VERSION = [
    (request, version)
    for request in REQUESTS
    for codec in [sys.modules[type(request).__module__]]
    for version in range(codec.MIN_VERSION, codec.MAX_VERSION + 1)
]


def errors_of(response: Any) -> set[int]:
    """All error codes in a response, wherever it has them."""
    found = {response.error_code} if hasattr(response, "error_code") else set()
    for field in ("topics", "partitions", "groups", "results"):
        for part in getattr(response, field, []):
            found |= errors_of(part)
    return found


def sent(response: Any, version: int) -> Any:
    codec = sys.modules[type(response).__module__]
    data = b"".join(bytes(each) for each in codec.encode_response(response, version))
    return codec.decode_response(memoryview(data), version)


@pytest.mark.parametrize(("request_message", "version"), EVERY_VERSION)
def test_every_refusal_reaches_the_client_in_every_version(request_message: Any, version: int) -> None:
    response = sent(refusal(request_message, version, ErrorCode.NOT_COORDINATOR), version)
    assert ErrorCode.NOT_COORDINATOR in errors_of(response)


def test_while_a_group_is_loading_a_heartbeat_is_well_and_a_sync_has_to_join_again() -> None:
    loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert refusal(HeartbeatRequest("g"), 4, loading).error_code == ErrorCode.NONE
    assert refusal(SyncGroupRequest("g"), 5, loading).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert refusal(JoinGroupRequest("g"), 9, loading).error_code == loading


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ErrorCode.NOT_ENOUGH_REPLICAS, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.REQUEST_TIMED_OUT, ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_COORDINATOR),
        (ErrorCode.RECORD_LIST_TOO_LARGE, ErrorCode.UNKNOWN_SERVER_ERROR),
        (ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.INVALID_PRODUCER_EPOCH),
    ],
)
def test_what_kept_a_record_out_of_the_log_is_told_as_what_a_client_can_do_about_it(
    failure: ErrorCode, told: ErrorCode
) -> None:
    assert append_refusal(SyncGroupRequest("g"), 5, failure).error_code == told


def test_offsets_that_are_too_much_for_the_log_have_an_error_of_their_own() -> None:
    commit = OffsetCommitRequest("g", topics=[OffsetCommitRequestTopic(partitions=[OffsetCommitRequestPartition(1)])])
    assert errors_of(append_refusal(commit, 9, ErrorCode.MESSAGE_TOO_LARGE)) == {ErrorCode.INVALID_COMMIT_OFFSET_SIZE}
