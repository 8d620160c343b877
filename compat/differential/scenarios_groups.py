"""Classic groups: JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13), and what is told of groups."""

from typing import Any

from compat.differential.scenario import Answer, Ask, Scenario, Taken
from compat.differential.scenarios_offsets import commit, fetch_all, forget
from compat.differential.steps import (
    DELETE_GROUPS,
    DESCRIBE_GROUPS,
    HEARTBEAT,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    SYNC_GROUP,
    create,
)
from kpy.errors import ErrorCode
from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription
from kpy.wire.delete_groups import DeleteGroupsRequest
from kpy.wire.describe_groups import DescribeGroupsRequest
from kpy.wire.heartbeat import HeartbeatRequest
from kpy.wire.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from kpy.wire.leave_group import LeaveGroupRequest, MemberIdentity
from kpy.wire.list_groups import ListGroupsRequest
from kpy.wire.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

SUBSCRIPTION = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(["t"]), 1)
RANGE = JoinGroupRequestProtocol("range", SUBSCRIPTION)
STICKY = JoinGroupRequestProtocol("sticky", SUBSCRIPTION)
WITHOUT_ROUND_TRIP = 3
"""The last JoinGroup version in which a new member joins without being given an id first."""


def join(
    member: str = "",
    save: str = "",
    *,
    version: int | None = None,
    later: bool = False,
    on: str = "main",
    **fields: Any,
) -> Ask:
    request = JoinGroupRequest(
        **{
            "group_id": "{g}",
            "session_timeout_ms": 30_000,
            "rebalance_timeout_ms": 30_000,
            "member_id": member,
            "protocol_type": "consumer",
            "protocols": [RANGE, STICKY],
            **fields,
        }
    )
    saved = {save: "member_id", f"{save}_generation": "generation_id"} if save else {}
    return Ask(request, version, saved, on, taken=Taken.LATER if later else Taken.AT_ONCE)


def sync(member: str, generation: int = 1, *assignments: tuple[str, bytes], **fields: Any) -> Ask:
    given = [SyncGroupRequestAssignment(to, what) for to, what in assignments]
    later = fields.pop("later", False)
    request = SyncGroupRequest(
        **{
            "group_id": "{g}",
            "generation_id": generation,
            "member_id": member,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": given,
            **fields,
        }
    )
    return Ask(request, taken=Taken.LATER if later else Taken.AT_ONCE)


def heartbeat(member: str, generation: int = 1, group: str = "{g}", instance: str | None = None) -> Ask:
    return Ask(HeartbeatRequest(group, generation, member, instance))


def leave(*members: str, group: str = "{g}", instance: str | None = None) -> Ask:
    identities = [MemberIdentity(member, instance) for member in members]
    return Ask(LeaveGroupRequest(group, members[0] if members else "", identities))


def describe(*groups: str, operations: bool = False) -> Ask:
    return Ask(DescribeGroupsRequest(list(groups) or ["{g}"], operations))


MEMBER = "{m}"
ONE_MEMBER = [
    join(save="m", version=WITHOUT_ROUND_TRIP),
    sync(MEMBER, 1, (MEMBER, b"assignment")),
]
STATIC = [
    join(save="m", version=5, group_instance_id="i"),
    sync(MEMBER, 1, (MEMBER, b"assignment"), group_instance_id="i"),
]


def in_a_round_of_two(*steps: Any) -> list[Any]:
    """A second member joins, which makes the first one join again; then the steps."""
    return [
        *ONE_MEMBER,
        join(save="n", version=WITHOUT_ROUND_TRIP, later=True, on="second"),
        heartbeat(MEMBER)._replace(until=lambda answer: answer.error_code == ErrorCode.REBALANCE_IN_PROGRESS),
        *steps,
    ]


ROUND_OF_TWO = in_a_round_of_two(
    join(MEMBER, later=True),
    Answer("main"),
    Answer("second", {"n": "member_id"}),
)

SCENARIOS = [
    # First, because it sees the groups of all scenarios before it.
    Scenario(
        "list groups",
        LIST_GROUPS,
        [
            *ONE_MEMBER,
            *(
                Ask(ListGroupsRequest(states, types))
                for states, types in [
                    ([], []),
                    (["sTable"], []),
                    (["Empty", "Dead"], []),
                    (["wrong"], []),
                    ([], ["classic"]),
                    ([], ["Consumer"]),
                    ([], ["x"]),
                ]
            ),
            leave(MEMBER),
        ],
    ),
    Scenario(
        "join group: new members",
        JOIN_GROUP,
        [
            join(save="m"),
            join(MEMBER),
            sync(MEMBER, 1, (MEMBER, b"x")),
            join(MEMBER),
            describe(),
        ],
    ),
    Scenario(
        "join group: static members",
        JOIN_GROUP,
        [
            join(save="m", group_instance_id="i"),
            sync(MEMBER, 1, (MEMBER, b"x"), group_instance_id="i"),
            join(save="n", group_instance_id="i"),
            sync("{n}", 1, group_instance_id="i"),
            join(MEMBER, group_instance_id="i"),
            join("{n}", group_instance_id="i"),
            heartbeat(MEMBER, instance="i"),
            heartbeat("{n}", instance="i"),
            heartbeat("{n}", instance="other"),
            describe(),
        ],
        range(5, 100),
    ),
    Scenario(
        "join group: wrong ones",
        JOIN_GROUP,
        [
            join(group_id=""),
            join("unknown-member"),
            join(session_timeout_ms=1),
            join(session_timeout_ms=1_800_001),
            join(session_timeout_ms=-1),
            join(session_timeout_ms=0),
            join(protocols=[]),
            join(protocol_type=""),
            *ONE_MEMBER,
            join("unknown-member"),
            join(protocol_type="connect"),
            join(protocols=[JoinGroupRequestProtocol("other", b"")]),
            join(MEMBER, protocol_type="connect"),
            join(MEMBER, protocols=[JoinGroupRequestProtocol("other", b"")]),
            describe(),
        ],
    ),
    Scenario("join group: two members", JOIN_GROUP, [*ROUND_OF_TWO, describe()], range(1, 100)),
    Scenario(
        "join group: the member changes its protocols",
        JOIN_GROUP,
        [*ONE_MEMBER, join(MEMBER, protocols=[STICKY]), sync(MEMBER, 2, protocol_name="sticky"), describe()],
    ),
    Scenario(
        "sync group",
        SYNC_GROUP,
        [
            join(save="m", version=WITHOUT_ROUND_TRIP),
            sync(MEMBER, 0),
            sync(MEMBER, 2),
            sync("unknown-member"),
            sync(MEMBER, group_id="{unknown}"),
            sync(MEMBER, group_id=""),
            sync(MEMBER, protocol_type="connect"),
            sync(MEMBER, protocol_name="other"),
            sync(MEMBER, protocol_type=None, protocol_name=None),
            sync(MEMBER, group_instance_id="i"),
            sync(MEMBER, 1, (MEMBER, b"x"), ("unknown-member", b"y")),
            sync(MEMBER, 1, (MEMBER, b"changed")),
            describe(),
        ],
    ),
    Scenario(
        "sync group: two members",
        SYNC_GROUP,
        [
            *ROUND_OF_TWO,
            Ask(sync("{n}", 2).request, connection="second", taken=Taken.LATER),
            heartbeat(MEMBER, 2),
            sync(MEMBER, 2, (MEMBER, b"m")),
            Answer("second"),
            heartbeat("{n}", 2),
            describe(),
        ],
    ),
    Scenario("sync group: while the group is joining", SYNC_GROUP, in_a_round_of_two(sync(MEMBER, 1))),
    Scenario(
        "heartbeat",
        HEARTBEAT,
        [
            *ONE_MEMBER,
            heartbeat(MEMBER),
            heartbeat(MEMBER, 0),
            heartbeat(MEMBER, 2),
            heartbeat(MEMBER, -1),
            heartbeat("unknown-member"),
            heartbeat(""),
            heartbeat(MEMBER, group="{unknown}"),
            heartbeat(MEMBER, group=""),
            heartbeat(MEMBER, instance="i"),
        ],
    ),
    Scenario(
        "heartbeat: in a rebalance",
        HEARTBEAT,
        [*in_a_round_of_two(heartbeat(MEMBER), heartbeat(MEMBER, 2)), join(MEMBER), heartbeat(MEMBER, 2)],
    ),
    Scenario(
        "leave group",
        LEAVE_GROUP,
        [
            *ONE_MEMBER,
            leave("unknown-member"),
            leave(MEMBER, group="{unknown}"),
            leave(MEMBER, group=""),
            leave(""),
            leave(MEMBER),
            leave(MEMBER),
            heartbeat(MEMBER),
            describe(),
        ],
    ),
    Scenario(
        "leave group: several and static members",
        LEAVE_GROUP,
        [
            *STATIC,
            leave(MEMBER, "unknown-member"),
            *STATIC,
            leave("", instance="other"),
            leave("wrong", instance="i"),
            leave("", instance="i"),
            describe(),
            leave(),
        ],
        range(3, 100),
    ),
    Scenario(
        "describe groups",
        DESCRIBE_GROUPS,
        [
            create(),
            describe("{unknown}", ""),
            join(save="m", version=WITHOUT_ROUND_TRIP),
            describe(),
            sync(MEMBER, 1, (MEMBER, b"x")),
            describe("{g}", "{unknown}", "{g}", operations=True),
            leave(MEMBER),
            describe(),
            commit((0, 1), group="{simple}"),
            describe("{simple}"),
        ],
    ),
    Scenario(
        "delete groups",
        DELETE_GROUPS,
        [
            create(),
            *ONE_MEMBER,
            Ask(DeleteGroupsRequest(["{g}", "{unknown}", ""])),
            commit((0, 1), group="{simple}"),
            leave(MEMBER),
            Ask(DeleteGroupsRequest(["{g}", "{simple}", "{g}"])),
            describe(),
            fetch_all("{simple}"),
            Ask(DeleteGroupsRequest([])),
        ],
    ),
    Scenario(
        "offset commit: by members",
        OFFSET_COMMIT,
        [
            create(),
            join(save="m", version=WITHOUT_ROUND_TRIP),
            commit((0, 1), generation_id_or_member_epoch=1, member_id=MEMBER),
            sync(MEMBER, 1, (MEMBER, b"x")),
            commit((0, 2), generation_id_or_member_epoch=1, member_id=MEMBER),
            commit((0, 3), generation_id_or_member_epoch=0, member_id=MEMBER),
            commit((0, 3), generation_id_or_member_epoch=1, member_id="unknown-member"),
            commit((0, 3), generation_id_or_member_epoch=-1, member_id=""),
            commit((0, 3), generation_id_or_member_epoch=-1, member_id=MEMBER),
            commit((0, 3), generation_id_or_member_epoch=1, member_id=MEMBER, group_instance_id="i"),
            fetch_all("{g}"),
            leave(MEMBER),
            commit((0, 4), generation_id_or_member_epoch=1, member_id=MEMBER),
            commit((0, 5)),
            fetch_all("{g}"),
        ],
        range(1, 100),
    ),
    Scenario(
        "offset delete: of a group with members",
        OFFSET_DELETE,
        [
            create("t"),
            create("u"),
            join(
                save="m",
                version=WITHOUT_ROUND_TRIP,
                protocols=[JoinGroupRequestProtocol("range", SUBSCRIPTION)],
            ),
            sync(MEMBER, 1, (MEMBER, b"x")),
            commit((0, 2), generation_id_or_member_epoch=1, member_id=MEMBER),
            forget(0),
            forget(0, topic="{u}"),
        ],
    ),
    Scenario(
        "offset delete: of a group that is not of consumers",
        OFFSET_DELETE,
        [create("t"), join(save="m", version=WITHOUT_ROUND_TRIP, protocol_type="connect"), forget(0)],
    ),
]
