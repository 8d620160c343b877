"""The requests of the group transcripts: what an actor, or a tool, sends.

An actor remembers the member id and the generation it was told. Actor `-` is nobody's member.

    join <actor> [v=9] [new] [instance=a] [session=10000] [rebalance=60000] [protocols=range,sticky] [topics=t]
    sync <actor> [<actor>=<assignment> ...] [generation=1] [protocol=range]
    heartbeat <actor> [generation=1] [instance=a]      leave <actor> [v=5] [instance=a,b]
    commit <actor> t-0=5 [generation=1] [metadata=x] [retention=1000] [v=8]
    txn-commit <actor> t-0=5 producer=7 [generation=1] [member=m] [instance=a] [metadata-bytes=9] [v=4]
    fetch [all] [stable] [t-0 ...] [v=9]               forget-offsets t-0
    describe [v=6]     delete

All take group=<id> for a group other than g, and reason=<word>.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kpy.wire.offset_delete import OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic
from kpy.wire.offset_fetch import OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment
from kpy.wire.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from tests.transcripts.transcript import Words

GROUP = "g"


@dataclass
class Actor:
    name: str
    member_id: str = ""
    generation_id: int = -1
    instance_id: str | None = None
    protocol_name: str | None = None


Actors = dict[str, Actor]
Sent = tuple[Actor | None, object, int]
"""Who sends it, None for a tool; the request; its version."""


def join(actors: Actors, words: Words) -> Sent:
    actor = actor_of(actors, words)
    if "new" in words.flags:
        actor.member_id = ""
    actor.instance_id = words.options.get("instance")
    topics = words.names("topics") or ["t"]
    subscription = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(topics=topics), 1)
    return (
        actor,
        JoinGroupRequest(
            group_id=words.options.get("group", GROUP),
            session_timeout_ms=words.number("session", 10_000),
            rebalance_timeout_ms=words.number("rebalance", 60_000),
            member_id=actor.member_id,
            group_instance_id=actor.instance_id,
            protocol_type=words.options.get("type", "consumer"),
            protocols=[
                JoinGroupRequestProtocol(name=name, metadata=subscription)
                for name in words.options.get("protocols", "range").split(",")
                if name
            ],
            reason=words.options.get("reason"),
        ),
        words.number("v", 9),
    )


def sync(actors: Actors, words: Words) -> Sent:
    actor = actor_of(actors, words)
    assignments = [
        SyncGroupRequestAssignment(member_id=actors[name].member_id, assignment=value.encode())
        for name, value in words.options.items()
        if name in actors
    ]
    return (
        actor,
        SyncGroupRequest(
            group_id=words.options.get("group", GROUP),
            generation_id=words.number("generation", actor.generation_id),
            member_id=actor.member_id,
            group_instance_id=actor.instance_id,
            protocol_type=words.options.get("type", "consumer"),
            protocol_name=words.options.get("protocol", actor.protocol_name),
            assignments=assignments,
        ),
        words.number("v", 5),
    )


def heartbeat(actors: Actors, words: Words) -> Sent:
    actor = actor_of(actors, words)
    message = HeartbeatRequest(
        group_id=words.options.get("group", GROUP),
        generation_id=words.number("generation", actor.generation_id),
        member_id=actor.member_id,
        group_instance_id=actor.instance_id,
    )
    return actor, message, words.number("v", 4)


def leave(actors: Actors, words: Words) -> Sent:
    version = words.number("v", 5)
    instances = words.names("instance")
    members = [MemberIdentity(member_id="", group_instance_id=each) for each in instances]
    actors = [actors[name] for name in words.flags]
    reason = words.options.get("reason")
    members += [MemberIdentity(each.member_id, each.instance_id, reason) for each in actors]
    message = LeaveGroupRequest(
        group_id=words.options.get("group", GROUP), member_id=members[0].member_id, members=members
    )
    return (actors[0] if actors else None), message, version


def commit(actors: Actors, words: Words) -> Sent:
    actor = None if words.flags[0] == "-" else actor_of(actors, words)
    topics: dict[str, list[OffsetCommitRequestPartition]] = {}
    for name, offset in words.options.items():
        if "-" in name:
            topic, partition = name.rsplit("-", 1)
            topics.setdefault(topic, []).append(
                OffsetCommitRequestPartition(
                    partition_index=int(partition),
                    committed_offset=int(offset),
                    committed_leader_epoch=words.number("epoch", -1),
                    committed_metadata=words.options.get("metadata"),
                )
            )
    message = OffsetCommitRequest(
        group_id=words.options.get("group", GROUP),
        generation_id_or_member_epoch=words.number("generation", actor.generation_id if actor else -1),
        member_id=actor.member_id if actor else "",
        group_instance_id=actor.instance_id if actor else None,
        retention_time_ms=words.number("retention", -1),
        topics=[OffsetCommitRequestTopic(name=topic, partitions=each) for topic, each in topics.items()],
    )
    return actor, message, words.number("v", 9)


def txn_commit(actors: Actors, words: Words) -> Sent:
    actor = None if words.flags[0] == "-" else actor_of(actors, words)
    topics: dict[str, list[TxnOffsetCommitRequestPartition]] = {}
    for name, offset in words.options.items():
        if re.fullmatch(r"[a-z]-\d", name):
            topic, partition = name.rsplit("-", 1)
            metadata = "x" * words.number("metadata-bytes", 0)
            each = TxnOffsetCommitRequestPartition(int(partition), int(offset), -1, metadata)
            topics.setdefault(topic, []).append(each)
    message = TxnOffsetCommitRequest(
        transactional_id="tx",
        group_id=GROUP,
        producer_id=words.number("producer", 7),
        producer_epoch=0,
        generation_id=words.number("generation", actor.generation_id if actor else -1),
        member_id=words.options.get("member", actor.member_id if actor else ""),
        group_instance_id=words.options.get("instance", actor.instance_id if actor else None),
        topics=[TxnOffsetCommitRequestTopic(topic, each) for topic, each in topics.items()],
    )
    return actor, message, words.number("v", 4)


def fetch(actors: Actors, words: Words) -> Sent:
    topics: dict[str, list[int]] = {}
    for name in words.flags:
        if "-" in name:
            topic, partition = name.rsplit("-", 1)
            topics.setdefault(topic, []).append(int(partition))
    asked = [OffsetFetchRequestTopics(name=topic, partition_indexes=each) for topic, each in topics.items()]
    group = OffsetFetchRequestGroup(
        group_id=words.options.get("group", GROUP), topics=None if "all" in words.flags else asked
    )
    return None, OffsetFetchRequest(groups=[group], require_stable="stable" in words.flags), 9


def forget_offsets(actors: Actors, words: Words) -> Sent:
    topics = [
        OffsetDeleteRequestTopic(
            name=name.rsplit("-", 1)[0],
            partitions=[OffsetDeleteRequestPartition(partition_index=int(name.rsplit("-", 1)[1]))],
        )
        for name in words.flags
    ]
    return None, OffsetDeleteRequest(group_id=words.options.get("group", GROUP), topics=topics), 0


def describe(actors: Actors, words: Words) -> Sent:
    return None, DescribeGroupsRequest(groups=[words.options.get("group", GROUP)]), words.number("v", 5)


def delete(actors: Actors, words: Words) -> Sent:
    return None, DeleteGroupsRequest(groups_names=[words.options.get("group", GROUP)]), words.number("v", 2)


def actor_of(actors: Actors, words: Words) -> Actor:
    return actors.setdefault(words.flags[0], Actor(words.flags[0]))


REQUESTS: Mapping[str, Callable[[Actors, Words], Sent]] = {
    "join": join,
    "sync": sync,
    "heartbeat": heartbeat,
    "leave": leave,
    "commit": commit,
    "txn-commit": txn_commit,
    "fetch": fetch,
    "forget-offsets": forget_offsets,
    "describe": describe,
    "delete": delete,
}
