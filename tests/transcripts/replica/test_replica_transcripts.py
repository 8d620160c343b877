"""The leader's and the follower's machine say what the transcripts beside this file expect."""

from pathlib import Path

import pytest

from tests.transcripts.replica.replica_transcript import Transcript

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, rewrite: bool) -> None:
    expected = path.read_text()
    found = Transcript().run(expected)
    if rewrite:
        path.write_text(found)
    assert found == path.read_text()


def test_there_are_transcripts() -> None:
    assert FILES
