"""Each transcript of this directory, against the group machine; and that together they leave nothing out."""

from pathlib import Path

import pytest

from kpy.errors import ErrorCode as E
from kpy.group.transitions import TRANSITIONS, drawing
from tests.transcripts.group.group_transcript import GroupTranscript
from tests.transcripts.transcript import check

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"

FROM_THE_SHELL = {E.COORDINATOR_LOAD_IN_PROGRESS, E.NOT_COORDINATOR}
NOT_WRITTEN = {E.NOT_COORDINATOR, E.COORDINATOR_NOT_AVAILABLE}

ERRORS: dict[str, set[E]] = {
    "JoinGroup": {
        E.NONE,
        E.MEMBER_ID_REQUIRED,
        E.UNKNOWN_MEMBER_ID,
        E.INVALID_GROUP_ID,
        E.INVALID_SESSION_TIMEOUT,
        E.INCONSISTENT_GROUP_PROTOCOL,
        E.GROUP_MAX_SIZE_REACHED,
        E.FENCED_INSTANCE_ID,
        E.REBALANCE_IN_PROGRESS,
        E.UNKNOWN_SERVER_ERROR,
        *FROM_THE_SHELL,
        *NOT_WRITTEN,
    },
    "SyncGroup": {
        E.NONE,
        E.UNKNOWN_MEMBER_ID,
        E.INVALID_GROUP_ID,
        E.FENCED_INSTANCE_ID,
        E.ILLEGAL_GENERATION,
        E.INCONSISTENT_GROUP_PROTOCOL,
        E.REBALANCE_IN_PROGRESS,
        E.UNKNOWN_SERVER_ERROR,
        *NOT_WRITTEN,
    },
    "Heartbeat": {
        E.NONE,
        E.UNKNOWN_MEMBER_ID,
        E.INVALID_GROUP_ID,
        E.FENCED_INSTANCE_ID,
        E.ILLEGAL_GENERATION,
        E.REBALANCE_IN_PROGRESS,
        E.NOT_COORDINATOR,
    },
    "LeaveGroup": {E.NONE, E.UNKNOWN_MEMBER_ID, E.INVALID_GROUP_ID, E.FENCED_INSTANCE_ID, *FROM_THE_SHELL},
    "OffsetCommit": {
        E.NONE,
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.OFFSET_METADATA_TOO_LARGE,
        E.INVALID_COMMIT_OFFSET_SIZE,
        E.UNKNOWN_MEMBER_ID,
        E.FENCED_INSTANCE_ID,
        E.ILLEGAL_GENERATION,
        E.REBALANCE_IN_PROGRESS,
        *FROM_THE_SHELL,
        *NOT_WRITTEN,
    },
    "TxnOffsetCommit": {
        E.NONE,
        E.UNKNOWN_TOPIC_OR_PARTITION,
        E.OFFSET_METADATA_TOO_LARGE,
        E.INVALID_COMMIT_OFFSET_SIZE,
        E.UNKNOWN_MEMBER_ID,
        E.FENCED_INSTANCE_ID,
        E.ILLEGAL_GENERATION,
        E.INVALID_PRODUCER_EPOCH,
        E.COORDINATOR_NOT_AVAILABLE,
        *FROM_THE_SHELL,
    },
    "OffsetFetch": {E.NONE, E.UNSTABLE_OFFSET_COMMIT, *FROM_THE_SHELL},
    "OffsetDelete": {
        E.NONE,
        E.INVALID_GROUP_ID,
        E.GROUP_ID_NOT_FOUND,
        E.NON_EMPTY_GROUP,
        E.GROUP_SUBSCRIBED_TO_TOPIC,
        E.UNKNOWN_TOPIC_OR_PARTITION,
        *FROM_THE_SHELL,
        *NOT_WRITTEN,
    },
    "DescribeGroups": {E.NONE, E.GROUP_ID_NOT_FOUND, *FROM_THE_SHELL},
    "DeleteGroups": {E.NONE, E.GROUP_ID_NOT_FOUND, E.NON_EMPTY_GROUP, *FROM_THE_SHELL, *NOT_WRITTEN},
}
"""Every error code that each API has for a group. Not here: what its handler says before a group is asked
(UNKNOWN_TOPIC_ID of OffsetCommit and OffsetFetch 10), and POLICY_VIOLATION above MAX_GROUPS (test_group_shard.py)."""


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_group_machine_does_what_the_transcript_says(path: Path, rewrite: bool) -> None:
    check(path, GroupTranscript().run(path.read_text()), rewrite=rewrite)


def all_runs() -> list[GroupTranscript]:
    runs: list[GroupTranscript] = []
    for path in TRANSCRIPTS:
        run = GroupTranscript()
        run.run(path.read_text())
        runs.append(run)
    return runs


def test_the_transcripts_show_every_move_between_states_and_no_other() -> None:
    seen = {move for run in all_runs() for move in run.moves}
    assert seen == {(state, cause) for state, causes in TRANSITIONS.items() for cause in causes}


def test_the_transcripts_show_every_error_code_of_every_api_and_no_other() -> None:
    seen: dict[str, set[E]] = {}
    for run in all_runs():
        for api, error in run.errors:
            seen.setdefault(api, set()).add(error)
    assert seen == ERRORS


def test_the_drawing_in_the_architecture_is_the_table() -> None:
    assert f"```mermaid\n{drawing()}\n```" in ARCHITECTURE.read_text()
