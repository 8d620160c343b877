"""Committed offsets: what groups commit, fetch and delete, what a transaction holds back, and what expires.

Theory of operation. `Offsets` holds what has been replayed from the log, and only replay changes it: a commit makes
records, and counts once they are written. Records of a transaction (TxnOffsetCommit) are set aside under their producer
id until its end marker is replayed; then they are taken over, or forgotten if the transaction was aborted. Which of two
commits of one partition is the newer is decided by their order in the log.

An offset expires `offsets.retention.minutes` after its group became Empty; in a group that has no members of its own,
or for a topic that no member subscribes to any more, after it was committed. A client of OffsetCommit 2 to 4 may have
set a time of its own. (KIP-211, KIP-496; Kafka class OffsetMetadataManager.)
"""

from collections.abc import Callable, Iterator
from typing import Any

from kpy.errors import ErrorCode
from kpy.group.answers import GROUPS_IN_OFFSET_FETCH_SINCE, NO_LEADER_EPOCH, NO_OFFSET
from kpy.group.group import Group
from kpy.group.records import CommittedOffset, offset_record, offset_tombstone
from kpy.group.transitions import GroupState
from kpy.group.turn import Turn
from kpy.machine import NO_PRODUCER_ID, Request, StateRecord
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kpy.wire.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

NO_RETENTION_TIME = -1
NO_COMMIT_TIMESTAMP = -1
COMMIT_TIMESTAMP_VERSION = 1
RETENTION_TIME_VERSIONS = range(2, 5)

PartitionExists = Callable[[str, int], bool]
"""Whether the cluster has this partition of this topic."""

Placed = tuple[CommittedOffset, int]
"""An offset, and the place of its record in the order of the log."""


class Offsets:
    """The committed offsets of all groups of one shard. Changed by replay alone."""

    __slots__ = ("_committed", "_held_back", "_open_transactions", "_replayed")

    def __init__(self) -> None:
        self._committed: dict[str, dict[str, dict[int, Placed]]] = {}
        """group -> topic -> partition -> offset."""
        self._held_back: dict[int, dict[tuple[str, str, int], Placed]] = {}
        """producer id -> (group, topic, partition) -> offset of its open transaction."""
        self._open_transactions: dict[str, set[int]] = {}
        """group -> producer ids that have written offsets of it in a transaction that is still open."""
        self._replayed = 0

    # -- replay ------------------------------------------------------------------------------------------------------

    def put(self, group_id: str, topic: str, partition: int, committed: CommittedOffset, producer_id: int) -> None:
        self._replayed += 1
        placed = (committed, self._replayed)
        if producer_id == NO_PRODUCER_ID:
            self._committed.setdefault(group_id, {}).setdefault(topic, {})[partition] = placed
        else:
            self._held_back.setdefault(producer_id, {})[group_id, topic, partition] = placed
            self._open_transactions.setdefault(group_id, set()).add(producer_id)

    def remove(self, group_id: str, topic: str, partition: int) -> None:
        """A tombstone also takes what open transactions wrote before it."""
        self._replayed += 1
        topics = self._committed.get(group_id, {})
        partitions = topics.get(topic, {})
        partitions.pop(partition, None)
        if topic in topics and not partitions:
            del topics[topic]
        if group_id in self._committed and not topics:
            del self._committed[group_id]
        for producer_id in self._open_transactions.get(group_id, ()):
            self._held_back[producer_id].pop((group_id, topic, partition), None)

    def end_transaction(self, producer_id: int, *, committed: bool) -> None:
        self._replayed += 1
        for group_id in [group_id for group_id, open_ids in self._open_transactions.items() if producer_id in open_ids]:
            self._open_transactions[group_id].remove(producer_id)
            if not self._open_transactions[group_id]:
                del self._open_transactions[group_id]
        held_back = self._held_back.pop(producer_id, {})
        if not committed:
            return
        for (group_id, topic, partition), placed in held_back.items():
            partitions = self._committed.setdefault(group_id, {}).setdefault(topic, {})
            existing = partitions.get(partition)
            if existing is None or existing[1] < placed[1]:
                partitions[partition] = placed

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        placed = self._committed.get(group_id, {}).get(topic, {}).get(partition)
        return placed[0] if placed is not None else None

    def of_group(self, group_id: str) -> Iterator[tuple[str, int, CommittedOffset]]:
        for topic, partitions in self._committed.get(group_id, {}).items():
            for partition, (committed, _) in partitions.items():
                yield topic, partition, committed

    def partitions_of_group(self, group_id: str) -> dict[str, list[int]]:
        return {topic: list(partitions) for topic, partitions in self._committed.get(group_id, {}).items()}

    def count(self, group_id: str) -> int:
        return sum(len(partitions) for partitions in self._committed.get(group_id, {}).values())

    def places(self) -> Iterator[tuple[str, str, int]]:
        """Group, topic and partition of everything that is committed or held back."""
        for group_id in self._committed:
            for topic, partition, _ in self.of_group(group_id):
                yield group_id, topic, partition
        for held_back in self._held_back.values():
            yield from held_back

    def knows(self, group_id: str, topic: str, partition: int) -> bool:
        return self.get(group_id, topic, partition) is not None or self.is_held_back(group_id, topic, partition)

    def has_open_transaction(self, group_id: str) -> bool:
        return group_id in self._open_transactions

    def is_held_back(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction may yet change this offset."""
        key = (group_id, topic, partition)
        return any(key in self._held_back[producer_id] for producer_id in self._open_transactions.get(group_id, ()))


# -- OffsetCommit ------------------------------------------------------------------------------------------------------


def commit_offsets(turn: Turn, request: Request, refused: ErrorCode, partition_exists: PartitionExists) -> None:
    """Commit what can be: each partition is judged alone, after `refused`, which is what speaks against the member."""
    message: OffsetCommitRequest = request.message
    topics: list[OffsetCommitResponseTopic] = []
    for topic in message.topics:
        results: list[OffsetCommitResponsePartition] = []
        for each in topic.partitions:
            exists = partition_exists(topic.name, each.partition_index)
            error = _judged(turn, refused, each.committed_metadata, exists=exists)
            if not error:
                committed = committed_offset(each, message.retention_time_ms, request.version, turn.now_ms)
                turn.effects.append([offset_record(message.group_id, topic.name, each.partition_index, committed)])
            results.append(OffsetCommitResponsePartition(each.partition_index, error))
        topics.append(OffsetCommitResponseTopic(topic.name, topic.topic_id, results))
    turn.effects.reply(request.token, OffsetCommitResponse(topics=topics))


def _judged(turn: Turn, refused: ErrorCode, metadata: str | None, *, exists: bool) -> ErrorCode:
    """What speaks against one partition's offset: that there is no such partition, then `refused`, then its size."""
    if not exists:
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if not refused and metadata and length_in_java(metadata) > turn.config.offset_metadata_max_bytes:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    return refused


def length_in_java(text: str) -> int:
    """String.length: what offset.metadata.max.bytes counts, whatever it is called (GroupMetadataManager)."""
    return len(text) if text.isascii() else len(text.encode("utf-16-be", "surrogatepass")) // 2


def may_commit(group: Group | None, message: OffsetCommitRequest) -> ErrorCode:
    """A member commits in its generation; others (an admin, a simple consumer) only if nobody is a member.

    During PreparingRebalance members may still commit what they have read so far; in CompletingRebalance their
    partitions may already be another's.
    """
    if group is None:
        return ErrorCode.NONE if message.generation_id_or_member_epoch < 0 else ErrorCode.ILLEGAL_GENERATION
    if group.state is GroupState.EMPTY and message.generation_id_or_member_epoch < 0:
        return ErrorCode.NONE
    claims_membership = (
        message.generation_id_or_member_epoch >= 0 or message.member_id != "" or message.group_instance_id is not None
    )
    if not claims_membership:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = group.check_member(message.member_id, message.group_instance_id)
    if error:
        return error
    if message.generation_id_or_member_epoch != group.generation_id:
        return ErrorCode.ILLEGAL_GENERATION
    if group.state is GroupState.COMPLETING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def commit_in_transaction(turn: Turn, request: Request, refused: ErrorCode, partition_exists: PartitionExists) -> None:
    """Write offsets that count when the producer's transaction is committed, judged as `commit_offsets` does."""
    message: TxnOffsetCommitRequest = request.message
    topics: list[TxnOffsetCommitResponseTopic] = []
    for topic in message.topics:
        results: list[TxnOffsetCommitResponsePartition] = []
        for each in topic.partitions:
            exists = partition_exists(topic.name, each.partition_index)
            error = _judged(turn, refused, each.committed_metadata, exists=exists)
            if not error:
                committed = CommittedOffset(
                    each.committed_offset, each.committed_leader_epoch, each.committed_metadata or "", turn.now_ms
                )
                turn.effects.append([offset_record(message.group_id, topic.name, each.partition_index, committed)])
            results.append(TxnOffsetCommitResponsePartition(each.partition_index, error))
        topics.append(TxnOffsetCommitResponseTopic(topic.name, results))
    turn.effects.producer_id, turn.effects.producer_epoch = message.producer_id, message.producer_epoch
    turn.effects.reply(request.token, TxnOffsetCommitResponse(topics=topics))


def may_commit_in_transaction(group: Group | None, message: TxnOffsetCommitRequest) -> ErrorCode:
    """A producer that says for which member it commits is fenced with it (KIP-447); one that does not is trusted."""
    if group is None:
        return ErrorCode.NONE if message.generation_id < 0 else ErrorCode.UNKNOWN_MEMBER_ID
    if message.generation_id < 0 and group.state is GroupState.EMPTY:
        return ErrorCode.NONE
    if message.generation_id < 0 and message.member_id == "" and message.group_instance_id is None:
        return ErrorCode.NONE
    error = group.check_member(message.member_id, message.group_instance_id)
    if error:
        return error
    return ErrorCode.NONE if message.generation_id == group.generation_id else ErrorCode.ILLEGAL_GENERATION


def committed_offset(
    partition: OffsetCommitRequestPartition, retention_time_ms: int, version: int, now_ms: int
) -> CommittedOffset:
    """Version 1 can date a commit, versions 2 to 4 can set how long it is kept."""
    commit_timestamp_ms = now_ms
    if version == COMMIT_TIMESTAMP_VERSION and partition.commit_timestamp != NO_COMMIT_TIMESTAMP:
        commit_timestamp_ms = partition.commit_timestamp
    expire_timestamp_ms = -1
    if version in RETENTION_TIME_VERSIONS and retention_time_ms != NO_RETENTION_TIME:
        expire_timestamp_ms = now_ms + retention_time_ms
    return CommittedOffset(
        partition.committed_offset,
        partition.committed_leader_epoch,
        partition.committed_metadata or "",
        commit_timestamp_ms,
        expire_timestamp_ms,
    )


# -- OffsetFetch -------------------------------------------------------------------------------------------------------


def fetch_offsets(turn: Turn, offsets: Offsets, request: Request) -> None:
    """Offsets of groups and partitions nobody committed for are -1, which is no error. Null topics ask for all."""
    message: OffsetFetchRequest = request.message
    stable = message.require_stable
    turn.effects.reads_state = True
    if request.version >= GROUPS_IN_OFFSET_FETCH_SINCE:
        groups = [
            OffsetFetchResponseGroup(
                group_id=each.group_id,
                topics=[
                    OffsetFetchResponseTopics(
                        name=topic,
                        partitions=[
                            OffsetFetchResponsePartitions(*shown_offset(offsets, each.group_id, topic, index, stable))
                            for index in indexes
                        ],
                    )
                    for topic, indexes in asked_partitions(offsets, each.group_id, each.topics)
                ],
            )
            for each in message.groups
        ]
        turn.effects.reply(request.token, OffsetFetchResponse(groups=groups))
        return
    topics = [
        OffsetFetchResponseTopic(
            name=topic,
            partitions=[
                OffsetFetchResponsePartition(*shown_offset(offsets, message.group_id, topic, index, stable))
                for index in indexes
            ],
        )
        for topic, indexes in asked_partitions(offsets, message.group_id, message.topics)
    ]
    turn.effects.reply(request.token, OffsetFetchResponse(topics=topics))


def asked_partitions(offsets: Offsets, group_id: str, topics: list[Any] | None) -> list[tuple[str, list[int]]]:
    if topics is None:
        return list(offsets.partitions_of_group(group_id).items())
    return [(topic.name, topic.partition_indexes) for topic in topics]


def shown_offset(
    offsets: Offsets, group_id: str, topic: str, partition: int, stable: bool
) -> tuple[int, int, int, str, ErrorCode]:
    """The fields of a response partition, in order: index, offset, leader epoch, metadata, error.

    Asked for stable offsets (KIP-447), an offset that an open transaction may change is not shown.
    """
    if stable and offsets.is_held_back(group_id, topic, partition):
        return partition, NO_OFFSET, NO_LEADER_EPOCH, "", ErrorCode.UNSTABLE_OFFSET_COMMIT
    committed = offsets.get(group_id, topic, partition)
    if committed is None:
        return partition, NO_OFFSET, NO_LEADER_EPOCH, "", ErrorCode.NONE
    return partition, committed.offset, committed.leader_epoch, committed.metadata, ErrorCode.NONE


# -- OffsetDelete, DeleteGroups ----------------------------------------------------------------------------------------


def delete_offsets(
    turn: Turn, offsets: Offsets, group: Group | None, request: Request, partition_exists: PartitionExists
) -> None:
    """Offsets of a group may be deleted for topics it does not consume at the moment (KIP-496)."""
    message: OffsetDeleteRequest = request.message
    if group is None:
        turn.effects.reply(request.token, OffsetDeleteResponse(error_code=ErrorCode.GROUP_ID_NOT_FOUND))
        return
    if group.state is not GroupState.EMPTY and not group.is_consumer_group:
        turn.effects.reply(request.token, OffsetDeleteResponse(error_code=ErrorCode.NON_EMPTY_GROUP))
        return
    topics: list[OffsetDeleteResponseTopic] = []
    for topic in message.topics:
        results: list[OffsetDeleteResponsePartition] = []
        for each in topic.partitions:
            error = ErrorCode.NONE
            if not partition_exists(topic.name, each.partition_index):
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif group.is_subscribed_to(topic.name):
                error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            elif offsets.knows(group.group_id, topic.name, each.partition_index):
                turn.effects.append([offset_tombstone(group.group_id, topic.name, each.partition_index)])
            results.append(OffsetDeleteResponsePartition(partition_index=each.partition_index, error_code=error))
        topics.append(OffsetDeleteResponseTopic(name=topic.name, partitions=results))
    turn.effects.reply(request.token, OffsetDeleteResponse(topics=topics))


def tombstones_of_topics(offsets: Offsets, topics: frozenset[str]) -> list[StateRecord]:
    """What is committed for topics that have been deleted: a topic that is created anew must not start from it."""
    return [offset_tombstone(*place) for place in offsets.places() if place[1] in topics]


def tombstones_of_all(offsets: Offsets, group_id: str) -> list[StateRecord]:
    return [offset_tombstone(group_id, topic, partition) for topic, partition, _ in offsets.of_group(group_id)]


# -- expiry ------------------------------------------------------------------------------------------------------------


def expired(offsets: Offsets, group: Group, now_ms: int, retention_ms: int) -> list[tuple[str, int]]:
    """The partitions whose committed offsets the group has no claim to any more."""
    if group.protocol_type is None or group.state is GroupState.EMPTY:
        since_ms = group.state_timestamp_ms if group.protocol_type is not None else None
    elif group.is_consumer_group and group.subscribed_topics is not None and group.state is GroupState.STABLE:
        since_ms = None
    else:
        return []
    return [
        (topic, partition)
        for topic, partition, committed in offsets.of_group(group.group_id)
        if not group.is_subscribed_to(topic)
        and is_over(committed, since_ms, now_ms, retention_ms)
        and not offsets.is_held_back(group.group_id, topic, partition)
    ]


def is_over(committed: CommittedOffset, since_ms: int | None, now_ms: int, retention_ms: int) -> bool:
    if committed.expire_timestamp_ms != -1:
        return now_ms >= committed.expire_timestamp_ms
    return now_ms - (committed.commit_timestamp_ms if since_ms is None else since_ms) >= retention_ms
