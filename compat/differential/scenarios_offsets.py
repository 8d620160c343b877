"""OffsetCommit (8), OffsetFetch (9), OffsetDelete (47) of groups without members."""

from typing import Any

from compat.differential.scenario import Ask, Saved, Scenario
from compat.differential.steps import OFFSET_COMMIT, OFFSET_DELETE, OFFSET_FETCH, create
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.offset_delete import OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic
from kpy.wire.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)


def id_of(topic: str) -> Any:
    """Of {t} and {u}, which a scenario creates first, what its creation has brought; else one that no topic has."""
    return Saved(topic[1:-1] + "_id") if topic in ("{t}", "{u}") else b"\7" * 16


def commit(
    *partitions: tuple[int, int], topic: str = "{t}", group: str = "{g}", metadata: str | None = "m", **fields: Any
) -> Ask:
    """Of (partition, offset)s of one topic."""
    committed = [OffsetCommitRequestPartition(index, offset, 0, -1, metadata) for index, offset in partitions]
    return Ask(OffsetCommitRequest(group, topics=[OffsetCommitRequestTopic(topic, id_of(topic), committed)], **fields))


def fetch(*partitions: int, topic: str = "{t}", group: str = "{g}", stable: bool = False) -> Ask:
    topics = [OffsetFetchRequestTopic(topic, list(partitions))]
    of_group = OffsetFetchRequestGroup(group, topics=[OffsetFetchRequestTopics(topic, id_of(topic), list(partitions))])
    return Ask(OffsetFetchRequest(group, topics, [of_group], stable))


def fetch_all(*groups: str) -> Ask:
    return Ask(OffsetFetchRequest(groups[0], None, [OffsetFetchRequestGroup(group, topics=None) for group in groups]))


def forget(*partitions: int, topic: str = "{t}", group: str = "{g}") -> Ask:
    wanted = OffsetDeleteRequestTopic(topic, [OffsetDeleteRequestPartition(index) for index in partitions])
    return Ask(OffsetDeleteRequest(group, [wanted]))


COMMITTING = range(1, 100)
"""Version 0 keeps offsets in ZooKeeper."""

SCENARIOS = [
    Scenario(
        "offset commit: and fetch",
        OFFSET_COMMIT,
        [
            create("t", 2),
            commit((0, 5), (1, 6)),
            fetch(0, 1),
            commit((0, 3), metadata=None),
            commit((1, 2**62), metadata=""),
            commit((1, 8), metadata="ü" * 100),
            fetch(1, 0, 7),
            fetch_all("{g}"),
        ],
        COMMITTING,
    ),
    Scenario(
        "offset commit: wrong ones",
        OFFSET_COMMIT,
        [
            create("t", 2),
            commit((0, 1), (2, 1), (-1, 1)),
            commit((0, 1), topic="{nothing}"),
            commit((0, 1), topic="in valid"),
            commit((0, 1), topic=""),
            commit((0, -1)),
            commit((0, -5)),
            commit((0, 1), metadata="x" * 4096),
            commit((0, 1), metadata="x" * 4097),
            # What counts are a Java string's chars: a byte, two or four in UTF-8 are one, one and two of them.
            commit((0, 1), metadata="ü" * 4096),
            commit((0, 1), metadata="𝄞" * 2048),
            commit((0, 1), metadata="𝄞" * 2049),
            commit((0, 1), group=""),
            commit((0, 1), group="{h}", generation_id_or_member_epoch=3, member_id="x"),
            commit((0, 1), group="{h}", generation_id_or_member_epoch=-1, member_id="x"),
            commit((0, 1), group="{h}", generation_id_or_member_epoch=3, member_id=""),
            commit((0, 1), group="{h}", generation_id_or_member_epoch=0, member_id=""),
            commit((0, 1), generation_id_or_member_epoch=3, member_id="x"),
            commit((0, 1), generation_id_or_member_epoch=-1, member_id="x"),
            commit((0, 1), generation_id_or_member_epoch=-7),
            commit((0, 1), group="{i}", generation_id_or_member_epoch=-1, group_instance_id="static"),
            commit((0, 7), (0, 8)),
            commit(),
            Ask(OffsetCommitRequest("{g}")),
            fetch(0, 1),
            fetch_all("{g}", "{h}"),
        ],
        COMMITTING,
    ),
    Scenario(
        "offset commit: retention",
        OFFSET_COMMIT,
        [create(), commit((0, 4), retention_time_ms=60_000), fetch(0)],
        range(2, 5),
    ),
    Scenario(
        "offset fetch",
        OFFSET_FETCH,
        [
            create("t", 2),
            commit((0, 5)),
            fetch(0, 1, 9, -1),
            fetch(0, stable=True),
            fetch(0, topic="{nothing}"),
            fetch(0, topic=""),
            fetch(),
            fetch(0, 0),
            fetch(0, group="{unknown}"),
            fetch(0, group=""),
        ],
        range(1, 100),
    ),
    Scenario(
        "offset fetch: everything",
        OFFSET_FETCH,
        [
            create("t", 2),
            create("u"),
            commit((0, 5)),
            commit((0, 6), topic="{u}"),
            fetch_all("{g}"),
            fetch_all("{unknown}"),
            fetch_all(""),
        ],
        range(2, 100),
    ),
    Scenario(
        "offset fetch: several groups",
        OFFSET_FETCH,
        [
            create("t", 2),
            commit((0, 5)),
            commit((1, 6), group="{h}"),
            fetch_all("{g}", "{unknown}", "{h}", "{g}"),
            Ask(OffsetFetchRequest(groups=[OffsetFetchRequestGroup("{g}", "member", 3, None)])),
            Ask(OffsetFetchRequest(groups=[OffsetFetchRequestGroup("{g}", "", -1, [])])),
        ],
        range(8, 100),
    ),
    Scenario(
        "offset delete",
        OFFSET_DELETE,
        [
            create("t", 2),
            commit((0, 5), (1, 6)),
            forget(0, 5),
            fetch(0, 1),
            forget(0, topic="{nothing}"),
            forget(0, group="{unknown}"),
            forget(0, 1),
            fetch_all("{g}"),
        ],
    ),
    Scenario(
        "offset delete: the empty group id", OFFSET_DELETE, [create(), commit((0, 5), group=""), forget(0, group="")]
    ),
    Scenario(
        "offset delete: the last offset",
        OFFSET_DELETE,
        [create(), commit((0, 5)), forget(0), Ask(DeleteGroupsRequest(["{g}"]))],
    ),
]
