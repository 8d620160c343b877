"""One shard of groups with nothing around it, and what is asked of it."""

import random
from typing import Any

from kpy.group.shard import GroupShard
from kpy.group.turn import GroupConfig
from kpy.machine import Effects, Request
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

NOW_MS = 1_700_000_000_000


class Told:
    """A shard whose records are always written."""

    def __init__(self, **config: int) -> None:
        self.shard = GroupShard(GroupConfig(**config), random.Random(1), lambda topic, partition: partition < 3)
        self.now_ms = NOW_MS
        self.records: list[tuple[bytes, bytes | None]] = []
        self.answers: dict[object, Any] = {}

    def carry_out(self, effects: Effects) -> None:
        for key, value in effects.records:
            self.records.append((key, value))
            self.shard.replay(key, value)
        self.answers |= dict(effects.replies)

    def ask(self, message: Any, version: int, client_id: str = "c") -> Any:
        """The answer, or None when it is parked."""
        token = object()
        self.carry_out(self.shard.handle(Request(message, version, client_id, "/127.0.0.1", token), self.now_ms))
        return self.answers.get(token)

    def stable_group(self, group_id: str = "g", version: int = 3) -> str:
        """A group of one member, which has its assignment. Returns the member's id."""
        member_id = self.ask(join(group_id), version).member_id
        assignment = [SyncGroupRequestAssignment(member_id=member_id, assignment=b"mine")]
        generation_id = self.shard.groups[group_id].generation_id
        sync = SyncGroupRequest(group_id, generation_id, member_id, assignments=assignment)
        assert self.ask(sync, 3).assignment == b"mine"
        return member_id


def join(group_id: str = "g", member_id: str = "", **more: Any) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id=group_id,
        session_timeout_ms=more.get("session_timeout_ms", 10_000),
        rebalance_timeout_ms=more.get("rebalance_timeout_ms", 60_000),
        member_id=member_id,
        protocol_type=more.get("protocol_type", "consumer"),
        protocols=[JoinGroupRequestProtocol(name=name, metadata=b"meta") for name in more.get("protocols", ["range"])],
    )


def commit(*offsets: tuple[int, int], metadata: str | None = None, **more: Any) -> OffsetCommitRequest:
    partitions = [
        OffsetCommitRequestPartition(
            partition_index=index,
            committed_offset=offset,
            committed_leader_epoch=more.pop("leader_epoch", -1),
            commit_timestamp=more.pop("commit_timestamp", -1),
            committed_metadata=metadata,
        )
        for index, offset in offsets
    ]
    return OffsetCommitRequest(group_id="g", topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)], **more)


def fetch(told: Told, version: int, *, all_topics: bool = False, stable: bool = False) -> Any:
    if version < 8:
        topics = None if all_topics else [OffsetFetchRequestTopic(name="t", partition_indexes=[0, 1])]
        return told.ask(OffsetFetchRequest(group_id="g", topics=topics, require_stable=stable), version)
    asked = None if all_topics else [OffsetFetchRequestTopics(name="t", partition_indexes=[0, 1])]
    return told.ask(OffsetFetchRequest(groups=[OffsetFetchRequestGroup("g", topics=asked)]), version)
