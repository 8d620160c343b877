"""Each transcript of this directory, against the controller."""

from pathlib import Path

import pytest
from controller_transcript import Transcript

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_controller_decides_what_the_transcript_says(path: Path, rewrite: bool) -> None:
    expected = path.read_text()
    happened = Transcript().run(expected)
    if rewrite:
        path.write_text(happened)
    assert happened == path.read_text()
