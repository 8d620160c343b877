"""Answers of the group APIs, with the nullability each version wants.

Versions below 7 of JoinGroup know no null protocol name: "nothing" is an empty string there. A request that never
reaches a group, because its coordinator is elsewhere, still loading, or could not write, is answered by `refusal`.
"""

from collections.abc import Callable
from typing import Any

from kpy.errors import ErrorCode
from kpy.group.group import Group, Member
from kpy.wire.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse
from kpy.wire.describe_groups import DescribedGroup, DescribeGroupsRequest, DescribeGroupsResponse
from kpy.wire.heartbeat import HeartbeatRequest, HeartbeatResponse
from kpy.wire.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember
from kpy.wire.leave_group import LeaveGroupRequest, LeaveGroupResponse
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kpy.wire.offset_delete import OffsetDeleteRequest, OffsetDeleteResponse
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupResponse
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

NO_OFFSET = -1
NO_LEADER_EPOCH = -1
NULL_PROTOCOL_NAME_SINCE = 7
GROUPS_IN_OFFSET_FETCH_SINCE = 8
TOP_LEVEL_OFFSET_FETCH_ERROR_SINCE = 2
LOADING_IN_TXN_OFFSET_COMMIT_SINCE = 2


def joined(group: Group, member: Member, version: int, *, leader_id: str | None = None) -> JoinGroupResponse:
    """The generation that a member is in. Its leader also learns who the others are, to assign to them.

    `leader_id` names another leader, to a member that leads but must not assign.
    """
    protocol = group.protocol_name
    members: list[JoinGroupResponseMember] = []
    if member.member_id == group.leader_id and leader_id is None:
        members = [
            JoinGroupResponseMember(
                member_id=each.member_id,
                group_instance_id=each.group_instance_id,
                metadata=each.protocols[protocol] if protocol is not None else b"",
            )
            for each in group.members.values()
        ]
    return JoinGroupResponse(
        generation_id=group.generation_id,
        protocol_type=group.protocol_type,
        protocol_name=nullable_protocol_name(protocol, version),
        leader=leader_id or group.leader_id or "",
        member_id=member.member_id,
        members=members,
    )


def join_error(version: int, error: ErrorCode, member_id: str) -> JoinGroupResponse:
    return JoinGroupResponse(error_code=error, protocol_name=nullable_protocol_name(None, version), member_id=member_id)


def nullable_protocol_name(name: str | None, version: int) -> str | None:
    return name if name is not None or version >= NULL_PROTOCOL_NAME_SINCE else ""


def sync_error(error: ErrorCode) -> SyncGroupResponse:
    return SyncGroupResponse(error_code=error)


def offset_commit_error(message: OffsetCommitRequest, error: ErrorCode) -> OffsetCommitResponse:
    """There is no error of the whole request, so each partition carries it."""
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=[
                    OffsetCommitResponsePartition(partition_index=each.partition_index, error_code=error)
                    for each in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


def txn_offset_commit_error(message: TxnOffsetCommitRequest, version: int, error: ErrorCode) -> TxnOffsetCommitResponse:
    """Producers before version 2 do not survive COORDINATOR_LOAD_IN_PROGRESS (KAFKA-7296)."""
    if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and version < LOADING_IN_TXN_OFFSET_COMMIT_SINCE:
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
    return TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponseTopic(
                topic.name,
                [TxnOffsetCommitResponsePartition(each.partition_index, error) for each in topic.partitions],
            )
            for topic in message.topics
        ]
    )


def offset_fetch_error(message: OffsetFetchRequest, version: int, error: ErrorCode) -> OffsetFetchResponse:
    """From version 8 on each group has an error, from 2 on the request has one, before that each partition."""
    if version >= GROUPS_IN_OFFSET_FETCH_SINCE:
        return OffsetFetchResponse(
            groups=[OffsetFetchResponseGroup(group_id=each.group_id, error_code=error) for each in message.groups]
        )
    if version >= TOP_LEVEL_OFFSET_FETCH_ERROR_SINCE:
        return OffsetFetchResponse(error_code=error)
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=index,
                        committed_offset=NO_OFFSET,
                        committed_leader_epoch=NO_LEADER_EPOCH,
                        metadata="",
                        error_code=error,
                    )
                    for index in topic.partition_indexes
                ],
            )
            for topic in message.topics or []
        ]
    )


def heartbeat_refusal(error: ErrorCode) -> HeartbeatResponse:
    """While the group is still being read from the log, a member that heartbeats need not do anything."""
    return HeartbeatResponse(error_code=ErrorCode.NONE if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error)


def sync_refusal(error: ErrorCode) -> SyncGroupResponse:
    """A group that is being read has lost the rebalance that this member is in: it joins again at once."""
    return sync_error(ErrorCode.REBALANCE_IN_PROGRESS if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS else error)


def describe_error(message: DescribeGroupsRequest, error: ErrorCode) -> DescribeGroupsResponse:
    return DescribeGroupsResponse(groups=[DescribedGroup(error_code=error, group_id=each) for each in message.groups])


def delete_error(message: DeleteGroupsRequest, error: ErrorCode) -> DeleteGroupsResponse:
    return DeleteGroupsResponse(
        results=[DeletableGroupResult(group_id=each, error_code=error) for each in message.groups_names]
    )


REFUSALS: dict[type, Callable[[Any, int, ErrorCode], Any]] = {
    JoinGroupRequest: lambda message, version, error: join_error(version, error, message.member_id),
    SyncGroupRequest: lambda message, version, error: sync_refusal(error),
    HeartbeatRequest: lambda message, version, error: heartbeat_refusal(error),
    LeaveGroupRequest: lambda message, version, error: LeaveGroupResponse(error_code=error),
    OffsetCommitRequest: lambda message, version, error: offset_commit_error(message, error),
    TxnOffsetCommitRequest: txn_offset_commit_error,
    OffsetFetchRequest: offset_fetch_error,
    OffsetDeleteRequest: lambda message, version, error: OffsetDeleteResponse(error_code=error),
    DescribeGroupsRequest: lambda message, version, error: describe_error(message, error),
    DeleteGroupsRequest: lambda message, version, error: delete_error(message, error),
}


def refusal(message: Any, version: int, error: ErrorCode) -> Any:
    """The answer to a group request that no group gets to see, in the place where its version carries errors."""
    return REFUSALS[type(message)](message, version, error)


APPEND_ERRORS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}
"""What a member is told when the log did not take its group's records: to come again, or to look elsewhere."""

OFFSETS_TOO_LARGE = frozenset({ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE})


def append_refusal(message: Any, version: int, error: ErrorCode) -> Any:
    """The answer to a request whose records could not be written because of `error`."""
    if isinstance(message, OffsetCommitRequest | TxnOffsetCommitRequest) and error in OFFSETS_TOO_LARGE:
        return refusal(message, version, ErrorCode.INVALID_COMMIT_OFFSET_SIZE)
    return refusal(message, version, APPEND_ERRORS.get(error, error))
